#!/usr/bin/env python3
"""Checks what stands in deploy/ and needs no Docker: the unit of systemd and the system calls that it allows, the manifests of
Kubernetes, and the bill of materials.

usage: check.py PROGRAM
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import yaml
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

import syscalls

ROOT = Path(__file__).resolve().parents[2]
UNIT = ROOT / "deploy" / "systemd" / "bailiwick.service"
EXPOSURE_MAX = 2.0
# The oldest that its makers still mend, and the newest that the schemas are known of.
KUBERNETES = ("1.34", "1.37")
KUSTOMIZATION = "kustomization.yaml"


def systemd(program):
    """The unit is as closed as it can be, and not more than the program bears."""
    if shutil.which("systemd-analyze") is None:
        return "SYSTEMD NOT CHECKED: there is no systemd-analyze here"
    done = subprocess.run(["systemd-analyze", "security", "--offline=true", UNIT], check=False, capture_output=True, text=True)
    exposure = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert exposure, f"systemd-analyze says nothing of the unit: {done.stderr}"
    assert float(exposure[1]) < EXPOSURE_MAX, f"the unit's exposure is {exposure[1]}, not below {EXPOSURE_MAX}"
    unit = UNIT.read_text()
    return f"systemd: exposure {exposure[1]}; {syscalls.check(program, unit)}"


def kubernetes():
    """The manifests are what Kubernetes takes, without a key that it does not know."""
    files = [file for file in sorted((ROOT / "deploy" / "kubernetes").glob("*.yaml")) if file.name != KUSTOMIZATION]
    kinds = set()
    for file in files:
        for manifest in yaml.safe_load_all(file.read_text()):
            kinds.add(manifest["kind"])
            for version in KUBERNETES:
                kubernetes_validate.validate(manifest, version, strict=True)
    named = yaml.safe_load((ROOT / "deploy" / "kubernetes" / KUSTOMIZATION).read_text())
    assert set(named["resources"]) == {file.name for file in files}, "kustomization.yaml does not name every manifest"
    made = [file for one in named["configMapGenerator"] for file in one["files"]]
    assert all((ROOT / "deploy" / "kubernetes" / file).is_file() for file in made), made
    return f"kubernetes: {', '.join(sorted(kinds))} are as the schemas of {' and '.join(KUBERNETES)} say"


def bill_of_materials():
    """The bill is valid, and always the same."""
    bills = {subprocess.run([ROOT / "scripts" / "sbom.py"], check=True, capture_output=True, text=True).stdout for _ in range(2)}
    assert len(bills) == 1, "two runs print two bills"
    (bill,) = bills
    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(bill)
    assert error is None, f"the bill of materials is no CycloneDX 1.6: {error}"
    return f"bill of materials: {bill.count('pkg:cargo/')} references to crates, CycloneDX 1.6"


def main():
    """Checks all."""
    print(kubernetes(), bill_of_materials(), systemd(sys.argv[1]), sep="\n")


if __name__ == "__main__":
    main()
