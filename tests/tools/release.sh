#!/usr/bin/env bash
# Builds sdist and wheel of what is committed, checks them, and asks mini in an environment that holds nothing else.
#
#     tests/tools/release.sh [FOLDER]      both go to FOLDER, which is dist if none is named; dependencies are installed anew
#     tests/tools/release.sh --on .venv    the wheel alone, beside the packages of an environment: what .ci/run does
set -euo pipefail
cd "$(dirname "$0")/../.."

packages= folder=$PWD/dist
if [ "${1-}" = --on ]; then
    packages=$(realpath "${2:?an environment}")
elif [ $# -gt 0 ]; then
    mkdir -p "$1"
    folder=$(realpath "$1")
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset PYTHONPATH
git() { command git -c safe.directory='*' "$@"; }  # whoever owns the checkout

# What is committed and nothing else: no stray file can get in. tests/ stays out, of which setuptools would take a part.
[ -z "$(git status --porcelain)" ] || echo "not committed, so not in it: $(git status --porcelain | wc -l) files" >&2
mkdir "$work/source" "$work/away"
git archive HEAD vlinstruct pyproject.toml README.md LICENSE | tar x -C "$work/source"

if [ -n "$packages" ]; then
    folder=$work/dist
    "$packages/bin/pip" wheel -qq --no-deps -w "$folder" "$work/source"
else
    python3 -m venv "$work/tools"
    "$work/tools/bin/pip" install -qq build twine
    "$work/tools/bin/python" -m build -o "$folder" "$work/source" >"$work/build.log" 2>&1 || { cat "$work/build.log"; exit 1; }
    "$work/tools/bin/twine" check --strict "$folder"/vlinstruct-*
fi

git ls-files vlinstruct >"$work/tracked"
python3 - "$work/tracked" "$folder"/vlinstruct-* <<'END'
import sys, tarfile, zipfile

# All that is tracked must be there, and nothing else may; pictures are the documents', no code opens one.
tracked = {name for name in open(sys.argv[1]).read().split() if not name.endswith((".png", ".svg"))}
for archive in sys.argv[2:]:
    if archive.endswith(".whl"):
        names = {name for name in zipfile.ZipFile(archive).namelist() if ".dist-info/" not in name}
        others = set()
    else:
        names = {name.partition("/")[2] for name in tarfile.open(archive).getnames() if "." in name.rpartition("/")[2]}
        others = {"PKG-INFO", "README.md", "LICENSE", "pyproject.toml", "setup.cfg"}
        names = {name for name in names if name and ".egg-info" not in name} | {"LICENSE"}
    lacking, strange = sorted(tracked - names), sorted(names - tracked - others)
    if lacking or strange:
        sys.exit(f"{archive}: lacks {lacking}, and should not have {strange}")
    print(f"{archive}: {len(names)} files, nothing lacks and nothing is too many")
END

for release in "$folder"/vlinstruct-*; do
    python3 -m venv "$work/bare"
    if [ -n "$packages" ]; then
        "$work/bare/bin/pip" install -q --no-deps --no-index "$release"
        # Behind its own, and as a folder: what an editable install has left there is not followed.
        site_packages='import sysconfig; print(sysconfig.get_path("purelib"))'
        "$packages/bin/python" -c "$site_packages" >"$("$work/bare/bin/python" -c "$site_packages")/beside.pth"
    else
        "$work/bare/bin/pip" install -qq "$release"
        "$work/bare/bin/pip" check
    fi
    cd "$work/away"
    "$work/bare/bin/python" -c '
import sys, vlinstruct
from PIL import Image, ImageDraw

assert vlinstruct.__file__.startswith(sys.prefix), vlinstruct.__file__
picture = Image.new("RGB", (224, 224), "white")
ImageDraw.Draw(picture).ellipse((60, 60, 160, 160), fill="red")
picture.save("circle.png")'
    answer=$("$work/bare/bin/vlinstruct" ask circle.png "what colour is the circle?" --offline)
    [ "$answer" = red ] || { echo "$release answers '$answer' in place of red" >&2; exit 1; }
    "$work/bare/bin/vlinstruct" doctor --offline >doctor.txt || { cat doctor.txt; exit 1; }
    cd - >/dev/null
    echo "$(basename "$release"): $(du -h "$release" | cut -f1), installed $(du -sh "$work"/bare/lib/python3*/site-packages/vlinstruct | cut -f1)," \
        "with everything beside it $(du -sh "$work/bare" | cut -f1); it answers"
    rm -rf "$work/bare"
done
