#!/usr/bin/env bash
# Asks the advisory databases about what we depend on: the oldest releases that we allow, and the newest. Needs the network:
# what the databases cannot say of a release is an error, too.
set -euo pipefail
cd "$(dirname "$0")/../.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/audit"
"$work/audit/bin/pip" install -q pip-audit
for constraints in tests/tools/oldest.txt /dev/null; do
    echo "with the constraints of $constraints"
    python3 -m venv "$work/project"
    "$work/project/bin/pip" install -q '.[all]' -c "$constraints"
    "$work/project/bin/pip" uninstall -q -y vlinstruct
    # By installed version, nothing is resolved or built again. A local build's suffix (+cpu) is no release of its own.
    "$work/project/bin/pip" freeze | sed 's/+[a-z0-9.]*$//' >"$work/releases.txt"
    "$work/audit/bin/pip-audit" --strict --no-deps --disable-pip -r "$work/releases.txt"
    rm -rf "$work/project"
done
