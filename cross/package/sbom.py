"""The packages inside `diffused`, in the format CycloneDX 1.5: cargo metadata ... | python3 cross/package/sbom.py VERSION"""
import json
import re
import sys
import tomllib
from pathlib import Path


def main(version):
    metadata = json.load(sys.stdin)
    lock = tomllib.loads((Path(metadata["workspace_root"]) / "Cargo.lock").read_text())
    checksums = {(p["name"], p["version"]): p.get("checksum") for p in lock["package"]}
    components = [component(package, checksums) for package in linked(metadata, "diffused")]
    components.sort(key=lambda entry: (entry["name"], entry["version"]))
    program = {"type": "application", "name": "diffused", "version": version, "bom-ref": f"pkg:cargo/diffused@{version}"}
    json.dump({"bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1, "metadata": {"component": program},
               "components": components}, sys.stdout, indent=1)
    print()


def linked(metadata, *programs):
    """The packages that are linked into the programs, but for themselves: not what build scripts and tests alone use."""
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    start = [package["id"] for package in metadata["packages"] if package["name"] in programs]
    seen, waiting = set(), list(start)
    while waiting:
        node = waiting.pop()
        if node not in seen:
            seen.add(node)
            deps = nodes[node]["deps"]
            waiting += [dep["pkg"] for dep in deps if any(kind["kind"] is None for kind in dep["dep_kinds"])]
    return [packages[node] for node in seen if node not in start]


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
