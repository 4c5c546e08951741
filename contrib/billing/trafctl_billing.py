#!/usr/bin/env python3
"""Turns a report of trafctl into what WHMCS and FOSSBilling accept. docs/billing.md shows it at work.

    trafctl report --by month --split class --from 2026-10-01 --to 2026-11-01 --format json >report.json
    trafctl_billing.py whmcs --prices prices.csv --out DIR report.json        a form for each line of a bill
    trafctl_billing.py fossbilling --prices prices.csv --out DIR report.json  a JSON document for each client
    trafctl_billing.py usage report.json                                      MB by container, for UsageUpdate

`whmcs` and `fossbilling` take a closed month only, because its figures never change again. They refuse a
container that is billed but has no price. They send nothing: they write a file for each request, without a
password. A file that exists, or exists with `.sent` at its end, is never written again.

The price list has a header and a line for each container and class. A price is for a GB, which is
1,000,000,000 bytes; `included_gb` are free. The class `*` takes all classes without a line of their own,
together.

    container,client,class,included_gb,price
    101,17,1,500,0.05

Needs Python 3.9 and nothing else. Exit status: 0 done, 2 refused and nothing written.
"""

import argparse
import csv
import json
import os
import re
import sys
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from urllib.parse import urlencode

GB = 10**9
# WHMCS divides by 1,024 between MB and GB.
WHMCS_MB = 1024**2
CENT = Decimal("0.01")
# Reasons of gaps whose traffic is in no sum (docs/faults-and-gaps.md).
LOSSES = {"before_attach", "reboot", "counters_renewed", "counter_lost", "ledger_lost", "reverted"}
COLUMNS = ["container", "client", "class", "included_gb", "price"]


class Refused(Exception):
    """Something that must be put right first."""


def number(text, what):
    """A decimal number that is not negative."""
    try:
        value = Decimal(text)
    except InvalidOperation:
        value = None
    if value is None or not value.is_finite() or value < 0:
        raise Refused(f"{what} is {text!r}; write a number such as 0.05")
    return value


def read_prices(path):
    """The price list by container and class."""
    prices = {}
    with open(path, newline="", encoding="utf-8-sig") as file:
        rows = csv.DictReader(file)
        if rows.fieldnames != COLUMNS:
            raise Refused(f"{path}: the first line must be {','.join(COLUMNS)}")
        for row in rows:
            where = f"{path}:{rows.line_num}"
            if None in row or None in row.values():
                raise Refused(f"{where}: a line has {len(COLUMNS)} fields")
            key = (row["container"], row["class"])
            if not re.fullmatch(r"\*|\d{1,3}", row["class"]) or row["class"] == "0":
                raise Refused(f"{where}: the class is {row['class']!r}; write 1 to 254, or *")
            if not re.fullmatch(r"\d+", row["client"]):
                raise Refused(f"{where}: the client is {row['client']!r}; write its number")
            if key in prices:
                raise Refused(f"{where}: a second price for container {key[0]}, class {key[1]}")
            prices[key] = {
                "client": int(row["client"]),
                "included": number(row["included_gb"], f"{where}: included_gb"),
                "price": number(row["price"], f"{where}: the price"),
            }
    return prices


def read_report(path):
    """A document of `trafctl report --by month --format json`."""
    with sys.stdin if path == "-" else open(path, encoding="utf-8") as file:
        try:
            report = json.load(file)
        except ValueError as error:
            raise Refused(f"{path} is no JSON: {error}") from error
    if not isinstance(report, dict) or report.get("version") != 1 or "rows" not in report:
        raise Refused(f"{path} is no report of version 1; make it with `trafctl report --format json`")
    if report["by"] != "month":
        raise Refused(f"{path} is a report by {report['by']}; make it with --by month")
    for row in report["rows"]:
        if "direction" in row or "family" in row:
            raise Refused(f"{path} is split by direction or family; make it with --split class alone")
    return report


def closed_month(report):
    """The only month of a report. Refuses one that is not closed, because its figures may still change."""
    months = {row["period"] for row in report["rows"] if row["billed"]}
    if len(months) != 1:
        raise Refused(f"the report has {len(months)} months with billed traffic; give --from and --to of one")
    month = months.pop()
    closed = [period for period in report["closed"] if period["name"] == month]
    ends = {row["end"] for row in report["rows"] if row["period"] == month}
    if not closed or ends != {closed[0]["end"]}:
        raise Refused(f"{month} is not closed in this ledger; `trafctl close {month}` closes it")
    return closed[0]


def bill(report, prices):
    """The lines of all bills, by client: container, class, bytes, and what they cost."""
    sums, missing = {}, set()
    for row in report["rows"]:
        if not row["billed"]:
            continue
        if "class" not in row:
            raise Refused("the report has no classes; make it with --split class")
        container, label = row["container"], str(row["class"])
        label = label if (container, label) in prices else "*"
        if (container, label) not in prices:
            missing.add(f"container {container} class {row['class']}")
            continue
        key = (container, label)
        sums[key] = sums.get(key, 0) + row["billing"]["to_bill"]["total"]["bytes"]
    if missing:
        raise Refused(f"there is no price for {', '.join(sorted(missing))}; a price of 0 makes it free")
    clients = {}
    for (container, label), total in sorted(sums.items()):
        price = prices[container, label]
        billed = max(Decimal(total) / GB - price["included"], Decimal(0))
        amount = (billed * price["price"]).quantize(CENT, ROUND_HALF_UP)
        line = {"container": container, "class": label, "bytes": total, "amount": amount, **price}
        line["name"] = report.get("class_names", {}).get(label)
        clients.setdefault(price["client"], []).append(line)
    return clients


def title(line, month):
    """The text on the invoice."""
    name = line["name"] or f"class {line['class']}"
    classes = "" if line["class"] == "*" else f" {name}"
    used = (Decimal(line["bytes"]) / GB).quantize(Decimal("0.001"), ROUND_HALF_UP)
    included = f" ({line['included']:f} GB included)" if line["included"] else ""
    return f"Traffic {month['name']}, {line['container']}{classes}: {used} GB{included}"


def whmcs(clients, month):
    """A form of `AddBillableItem` for each line that costs something."""
    for client, lines in clients.items():
        for line in (line for line in lines if line["amount"]):
            container = re.sub(r"[^\w.-]", "_", line["container"])
            name = f"{container}-{line['class'].replace('*', 'all')}"
            fields = {
                "action": "AddBillableItem",
                "clientid": client,
                "description": title(line, month),
                "amount": line["amount"],
                "unit": "quantity",
                "quantity": 1,
                "invoiceaction": "nextinvoice",
                "responsetype": "json",
            }
            yield f"{month['name']}-{client}-{name}.form", urlencode(fields)


def fossbilling(clients, month):
    """A document of `invoice/prepare` for each client with a line that costs something."""
    for client, lines in clients.items():
        items = [
            {"title": title(line, month), "price": str(line["amount"]), "quantity": 1, "taxed": True}
            for line in lines
            if line["amount"]
        ]
        if items:
            note = f"The figures of {month['name']} are closed under the hash {month['hash']}."
            document = {"client_id": client, "approve": False, "items": items, "text_2": note}
            yield f"{month['name']}-{client}.json", json.dumps(document, indent=2) + "\n"


def write(directory, files):
    """Writes each file once. Checks all names first, so that a second run changes nothing."""
    files = list(files)
    names = [name for name, _ in files]
    exists = lambda name, end: os.path.exists(os.path.join(directory, name + end))
    taken = [name for name in names if exists(name, "") or exists(name, ".sent")]
    if taken:
        raise Refused(f"{os.path.join(directory, taken[0])} exists: this month was written before")
    if len(set(names)) != len(names):
        raise Refused("two containers have ids that make the same file name")
    os.makedirs(directory, exist_ok=True)
    for name, text in files:
        with open(os.path.join(directory, name), "x", encoding="utf-8") as file:
            file.write(text)
        print(os.path.join(directory, name))


def usage(report):
    """What each container has used in the month in which a report ends, in MB as WHMCS counts them, rounded up.
    Class 0 is left out. A container of an earlier month has 0, so that no old figure remains in WHMCS."""
    rows = [row for row in report["rows"] if row["billed"]]
    latest = max((row["period"] for row in rows), default="")
    last = report.get("last_until", {"period": latest})["period"]
    used = dict.fromkeys((row["container"] for row in rows), 0)
    for row in (row for row in rows if row["period"] == last):
        used[row["container"]] += row["billing"]["to_bill"]["total"]["bytes"]
    return {container: -(-total // WHMCS_MB) for container, total in sorted(used.items())}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name, what in [("whmcs", "AddBillableItem"), ("fossbilling", "invoice/prepare")]:
        command = commands.add_parser(name, help=f"write requests of {what} for a closed month")
        command.add_argument("--prices", required=True, help="price list, CSV")
        command.add_argument("--out", required=True, help="directory for the files")
        command.add_argument("report", help="report, or - for standard input")
    command = commands.add_parser("usage", help="print MB by container")
    command.add_argument("report", help="report, or - for standard input")
    options = parser.parse_args()
    try:
        report = read_report(options.report)
        if options.command == "usage":
            print(json.dumps({"until": report["last_reading"], "mb": usage(report)}, indent=2))
            return 0
        month = closed_month(report)
        clients = bill(report, read_prices(options.prices))
        make = {"whmcs": whmcs, "fossbilling": fossbilling}[options.command]
        write(options.out, make(clients, month))
        for gap in (gap for gap in report["gaps"] if gap["reason"] in LOSSES):
            print(f"note: traffic may be missing: {gap['reason']} until {gap['end']}", file=sys.stderr)
        return 0
    except (Refused, OSError) as error:
        print(f"trafctl_billing: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
