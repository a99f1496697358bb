"""What other programs make of a table, and what the map makes of theirs.

Run by .ci/parts/programs after the example `airports_csv`, with pandas: reads its table with pandas and with sqlite3, compares both
with the original, and writes a table of its own for the map to open.
"""

import csv
import json
import subprocess
import sys

import pandas

original_path, flushed_path, pandas_path = sys.argv[1:]
CHANGED = {"LHR": {"name": 'London "Heathrow", the busiest'}}

with open(original_path, newline="", encoding="utf-8") as file:
    expected = {row["iata"]: row | CHANGED.get(row["iata"], {}) for row in csv.DictReader(file)}


def check(program, rows):
    found = {row["iata"]: row for row in rows}
    if found != expected:
        wrong = [key for key in expected if found.get(key) != expected[key]]
        sys.exit(f"FAILED: {program} reads {len(found)} rows, and other values for {wrong[:5]}")
    print(f"{program}: {len(found)} rows, all as expected")


table = pandas.read_csv(flushed_path, dtype=str, keep_default_na=False)
check(f"pandas {pandas.__version__}", table.to_dict("records"))

script = f".import --csv {flushed_path} airports\n.mode json\nSELECT * FROM airports;\n"
printed = subprocess.run(["sqlite3", ":memory:"], input=script, capture_output=True, text=True, check=True)
check("sqlite3", json.loads(printed.stdout))

# As pandas would save it: numbers as numbers, in an order of its own.
typed = pandas.read_csv(original_path, keep_default_na=False)
typed.sort_values("city", kind="stable").to_csv(pandas_path, index=False)
