#!/usr/bin/env python3
"""Prints what a release is made of, as a CycloneDX 1.6 bill of materials: the crates that are built in, by Cargo.lock, with their
hashes and licences, and ONNX Runtime, by scripts/setup. The same sources give the same text. It needs no network.

usage: scripts/env scripts/sbom.py > bailiwick.cdx.json
"""

import json
import re
import subprocess
import tomllib
import uuid
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TARGET = "x86_64-unknown-linux-gnu"
# Crates that have a file with their licence, and no name for it.
LICENCES = {"opendp": "MIT", "opendp_derive": "MIT", "opendp_tooling": "MIT"}
# C libraries that crates bring along and build in; a crate's version says theirs after `+`, if it says it.
BUNDLED = {"rdkafka-sys": ("librdkafka", "BSD-2-Clause"), "openssl-src": ("openssl", "Apache-2.0")}


def metadata():
    """What cargo knows of the crates that a build for Linux may need."""
    command = ["cargo", "metadata", "--locked", "--offline", "--format-version=1", f"--filter-platform={TARGET}"]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout)


def checksums():
    """The SHA-256 of each crate's archive, by name and version."""
    lock = tomllib.loads((ROOT / "Cargo.lock").read_text())
    return {(package["name"], package["version"]): package.get("checksum") for package in lock["package"]}


def built_in(known):
    """The crates that the program is built from, dependencies for tests left out: each id with the ids it needs."""
    nodes = {node["id"]: node for node in known["resolve"]["nodes"]}
    found, ahead = {}, [known["resolve"]["root"]]
    while ahead:
        crate = ahead.pop()
        if crate in found:
            continue
        needs = {need["pkg"] for need in nodes[crate]["deps"] if any(kind["kind"] != "dev" for kind in need["dep_kinds"])}
        found[crate] = sorted(needs)
        ahead += needs
    return found


def crate(package, checksum):
    """One crate as a component."""
    name, version = package["name"], package["version"]
    component = {"type": "library", "bom-ref": reference(package), "name": name, "version": version, "purl": reference(package)}
    if checksum:
        component["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    if licence := package.get("license") or LICENCES.get(name):
        # Old manifests write `/` for OR.
        component["licenses"] = [{"expression": licence.replace("/", " OR ")}]
    if package.get("repository"):
        component["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
    if name in BUNDLED and "+" in version:
        library, licence = BUNDLED[name]
        component["components"] = [{"type": "library", "bom-ref": f"{reference(package)}#{library}", "name": library,
                                    "version": version.partition("+")[2], "licenses": [{"expression": licence}]}]
    return component


def reference(package):
    """A crate's package URL."""
    return f"pkg:cargo/{package['name']}@{package['version'].replace('+', '%2B')}"


def onnxruntime():
    """ONNX Runtime, which is loaded at run time, as scripts/setup pins it."""
    setup = (ROOT / "scripts" / "setup").read_text()
    version = re.search(r"^ort_version=(\S+)", setup, re.MULTILINE)[1]
    pinned = re.search(r"^ort_sha256_x86_64=(\S+)", setup, re.MULTILINE)[1]
    purl = f"pkg:pypi/onnxruntime@{version}"
    return {"type": "library", "bom-ref": purl, "name": "onnxruntime", "version": version, "purl": purl,
            "hashes": [{"alg": "SHA-256", "content": pinned}], "licenses": [{"expression": "MIT"}]}


def main():
    """Prints the bill."""
    known, sums = metadata(), checksums()
    packages = {package["id"]: package for package in known["packages"]}
    found = built_in(known)
    root = packages[known["resolve"]["root"]]
    runtime = onnxruntime()
    crates = sorted((packages[one] for one in found if one != root["id"]), key=reference)
    needs = [{"ref": reference(packages[one]), "dependsOn": sorted({reference(packages[need]) for need in found[one]})} for one in found]
    next(one for one in needs if one["ref"] == reference(root))["dependsOn"].append(runtime["bom-ref"])
    bill = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "application", "bom-ref": reference(root), "name": root["name"], "version": root["version"],
                                   "purl": reference(root), "licenses": [{"expression": root["license"]}]}},
        "components": [*(crate(package, sums.get((package["name"], package["version"]))) for package in crates), runtime],
        "dependencies": [*sorted(needs, key=lambda one: one["ref"]), {"ref": runtime["bom-ref"]}],
    }
    # The same contents have the same number.
    bill["serialNumber"] = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(bill, sort_keys=True))}"
    print(json.dumps(bill, indent=1))


if __name__ == "__main__":
    main()
