"""Debian's file `copyright`, with the licences of all that is inside: cargo metadata ... | python3 cross/package/copyright.py

Packages whose licence is the same text share a paragraph. Apache's licence is on every Debian system.
"""
import json
import re
import sys
from pathlib import Path

from sbom import linked

NAMES = re.compile(r"(licen[cs]e|copying|copyright|notice|unlicense)", re.IGNORECASE)
WHOLE_APACHE = re.compile(r" *Apache License\s+Version 2\.0, Jan.*?(limitations under the License\.|\Z)", re.DOTALL)
APACHE = "/usr/share/common-licenses/Apache-2.0"


def main():
    metadata = json.load(sys.stdin)
    root = Path(metadata["workspace_root"])
    print("diffused, from https://github.com/diffused/diffused, with its demonstration model\n")
    print(f"License: MIT, or Apache-2.0 ({APACHE}), as you like.\n")
    print((root / "LICENSE-MIT").read_text().strip())
    packages, texts = [], {}
    for package in linked(metadata, "diffused", "model-prep"):
        if package["source"]:
            packages.append(package)
            for text in licences(package):
                users = texts.setdefault(re.sub(r"\s+", " ", text), (text, []))[1]
                users.append(f"{package['name']} {package['version']}")
    print("\n\nThe programs contain these Rust packages:\n")
    for package in sorted(packages, key=lambda package: (package["name"], package["version"])):
        print(f"  {package['name']} {package['version']}: {package['license'] or 'see below'}")
    print(f"\nApache-2.0 is {APACHE}. The other texts:")
    for text, users in sorted(texts.values(), key=lambda entry: entry[1]):
        print(f"\n{'-' * 78}\n{', '.join(sorted(users))}\n\n{text}")


def licences(package):
    """The texts beside the package: of a choice with MIT's, MIT's alone; and none that is Apache's."""
    folder = Path(package["manifest_path"]).parent
    files = sorted(path for path in folder.iterdir() if path.is_file() and NAMES.match(path.name))
    if " OR " in (package["license"] or "").replace("/", " OR "):
        files = [path for path in files if "mit" in path.name.lower()] or files
    texts = [WHOLE_APACHE.sub(f"[{APACHE}]", path.read_text(errors="replace")).strip() for path in files]
    return [text for text in texts if text != f"[{APACHE}]"]


if __name__ == "__main__":
    main()
