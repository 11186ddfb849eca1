"""`python -m tests.second_reader CLINIC_FOLDER`: the records of all blocks, one JSON line each."""

import json
import sys
from pathlib import Path

from tests.second_reader.clinic import read_clinic


def main() -> int:
    if len(sys.argv) != 2:
        sys.stderr.write("usage: python -m tests.second_reader CLINIC_FOLDER\n")
        return 2
    clinic = read_clinic(Path(sys.argv[1]))
    for block_id, records in clinic.records.items():
        for record in records:
            sys.stdout.write(json.dumps({"block": block_id, **record}, default=bytes.hex) + "\n")
    for block_id, reason in clinic.refused.items():
        sys.stderr.write(f"{block_id}: {reason}\n")
    return 1 if clinic.refused else 0


if __name__ == "__main__":
    sys.exit(main())
