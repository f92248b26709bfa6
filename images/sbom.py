"""Completes an image's list of parts: the version of what it is made for, and the packages of its Debian system.

`cyclonedx-py` lists the Python environment. Standard input and output are CycloneDX 1.6 JSON.
"""

from __future__ import annotations

import json
import sys
from email.parser import HeaderParser
from pathlib import Path
from urllib.parse import quote

version, status = sys.argv[1:]
bom = json.load(sys.stdin)
bom["metadata"]["component"]["version"] = version
for text in Path(status).read_text(encoding="utf-8").strip().split("\n\n"):
    package = HeaderParser().parsestr(text)
    if not str(package["Status"]).endswith(" installed"):
        continue
    purl = f"pkg:deb/debian/{package['Package']}@{quote(package['Version'])}?arch={package['Architecture']}"
    bom["components"].append(
        {"type": "library", "bom-ref": purl, "name": package["Package"], "version": package["Version"], "purl": purl}
    )
json.dump(bom, sys.stdout, indent=1)
