"""What a user of the wheel gets from others: `make sbom`, `make audit`.

    python -m support.supply_chain sbom|audit

`sbom` installs locks/run.txt into an environment of its own, and writes what is in it, and what the
page has vendored, as CycloneDX 1.6 (https://cyclonedx.org/docs/1.6/json/) to dist/; it fails for a
licence that is not in `ALLOWED`. `audit` asks the package index for known vulnerabilities of
locks/run.txt, and says loudly what it could not ask for.
"""

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

TOP: Final = Path(__file__).parents[2]
TOOLS: Final = TOP / ".trust" / "tools" / "bin"
INSTALLED: Final = TOP / ".trust" / "run" / "bin" / "python"
LOCK: Final = TOP / "locks" / "run.txt"
VENDORED: Final = TOP / "api_shim" / "page" / "static" / "vendor" / "manifest.json"
BILL: Final = TOP / "dist" / "llm-fleet.cdx.json"
ALLOWED: Final = frozenset({
    "0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "ISC", "MIT", "MPL-2.0",
    "PSF-2.0", "Python-2.0", "Zlib",
})  # fmt: skip
"""Licences that whoever runs or ships the fleet may accept; of an `OR`, one is enough."""
CLASSIFIERS: Final = {
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}
"""What older packages say instead of an SPDX identifier."""


def licence_names(component: dict[str, Any]) -> list[str]:
    """SPDX expressions of a component, each of which is offered."""
    found = []
    for each in component.get("licenses", []):
        licence = each.get("license", {})
        name = each.get("expression") or licence.get("id") or licence.get("name", "")
        found.append(CLASSIFIERS.get(name.rpartition(" :: ")[2], name))
    return found


def is_allowed(expression: str) -> bool:
    """Whether an SPDX expression can be accepted with `ALLOWED`."""
    plain = expression.replace("(", " ").replace(")", " ")
    return all(
        any(one.strip() in ALLOWED for one in part.split(" OR ")) for part in plain.split(" AND ")
    )


def not_allowed(components: Iterable[dict[str, Any]]) -> list[str]:
    """Components of which no licence is allowed, or none is known."""
    return [
        f"{each['name']} {each['version']}: {', '.join(names) or 'no licence'}"
        for each in components
        if not any(map(is_allowed, names := licence_names(each)))
    ]


def vendored() -> list[dict[str, Any]]:
    """The modules of the page, as components."""
    modules: dict[str, dict[str, Any]] = json.loads(VENDORED.read_text())
    found = []
    for name, each in modules.items():
        purl = f"pkg:npm/{name.replace('@', '%40')}@{each['version']}"
        licences = [{"license": {"id": each["license"]}}]
        found.append({"type": "library", "bom-ref": purl, "name": name, "purl": purl})
        found[-1] |= {"version": each["version"], "licenses": licences}
    return found


def write_bill(path: Path = BILL) -> dict[str, Any]:
    """Write the bill of materials, the same bytes each time, and return it."""
    path.parent.mkdir(exist_ok=True)
    command = [
        *(TOOLS / "cyclonedx-py", "environment", INSTALLED, "--pyproject", TOP / "pyproject.toml"),
        *("--output-reproducible", "--spec-version", "1.6", "--output-file", path),
    ]
    subprocess.run(command, check=True)
    bill: dict[str, Any] = json.loads(path.read_text())
    bill["components"] += vendored()
    path.write_text(json.dumps(bill, indent=2, ensure_ascii=False) + "\n")
    return bill


def sbom() -> int:
    """Print a line a component; 1 if a licence is not allowed."""
    components = write_bill()["components"]
    for each in components:
        names = " | ".join(licence_names(each))
        sys.stdout.write(f"{each['name']:28}{each['version']:18}{names}\n")
    sys.stdout.write(f"{len(components)} components: {BILL.relative_to(TOP)}\n")
    for line in (refused := not_allowed(components)):
        sys.stderr.write(f"NOT ALLOWED: {line}\n")
    return int(bool(refused))


def findings(told: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Of pip-audit's report: the vulnerabilities, and the packages it could not ask for."""
    packages = told["dependencies"]
    found = [
        f"{each['name']} {each['version']}: {flaw['id']}, fixed in {flaw['fix_versions'] or 'none'}"
        for each in packages
        for flaw in each.get("vulns", [])
    ]
    return found, [each["name"] for each in packages if "skip_reason" in each]


def audit() -> int:
    """Print what is known; 1 for a vulnerability, 0 where nobody can be asked, which it says."""
    command = [TOOLS / "pip-audit", "-r", LOCK, "--require-hashes", "--disable-pip", "-f", "json"]
    said = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    try:
        found, unknown = findings(json.loads(said.stdout))
    except ValueError:
        lines = said.stderr.strip().splitlines() or ["it said nothing"]
        sys.stderr.write(f"NOT AUDITED: no source of vulnerabilities answers: {lines[-1]}\n")
        return 0
    if unknown:
        names = ", ".join(unknown)
        sys.stderr.write(f"NOT AUDITED: {len(unknown)} packages are unknown there: {names}\n")
    known = len(json.loads(said.stdout)["dependencies"]) - len(unknown)
    verdict = "\n".join(found) or f"no known vulnerability in {known} packages"
    sys.stdout.write(f"{verdict}\n")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit({"sbom": sbom, "audit": audit}[sys.argv[1]]())
