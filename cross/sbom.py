"""The packages inside the program, in the format CycloneDX 1.5: cargo metadata ... | python3 cross/sbom.py VERSION

What build scripts and tests alone use is left out.
"""
import json
import re
import sys
import tomllib
from pathlib import Path


def main(version):
    metadata = json.load(sys.stdin)
    root = Path(metadata["workspace_root"])
    lock = tomllib.loads((root / "Cargo.lock").read_text())
    checksums = {(p["name"], p["version"]): p.get("checksum") for p in lock["package"]}
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    start = next(p["id"] for p in metadata["packages"] if p["name"] == "diffused")
    seen, waiting = set(), [start]
    while waiting:
        node = waiting.pop()
        if node not in seen:
            seen.add(node)
            deps = nodes[node]["deps"]
            waiting += [dep["pkg"] for dep in deps if any(kind["kind"] is None for kind in dep["dep_kinds"])]
    components = [component(packages[node], checksums) for node in seen if node != start]
    components.sort(key=lambda entry: (entry["name"], entry["version"]))
    program = {"type": "application", "name": "diffused", "version": version, "bom-ref": f"pkg:cargo/diffused@{version}"}
    json.dump({"bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1, "metadata": {"component": program},
               "components": components}, sys.stdout, indent=1)
    print()


def component(package, checksums):
    name, version = package["name"], package["version"]
    entry = {"type": "library", "name": name, "version": version, "purl": f"pkg:cargo/{name}@{version}"}
    entry["bom-ref"] = entry["purl"]
    if package["license"]:
        # Older packages separate alternatives by a slash.
        entry["licenses"] = [{"expression": re.sub(r"\s*/\s*", " OR ", package["license"])}]
    if checksum := checksums.get((name, version)):
        entry["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    return entry


if __name__ == "__main__":
    main(sys.argv[1])
