"""Every public item has an example, is shown in the example of a neighbour, or stands below with a reason why none.

    examples.py CRATE.json ..

Reads what rustdoc knows of a crate and names the items that no example shows. An item is shown by a code block that names
it: in its own documentation, in that of the item which holds it (the type of a method), or in that of an item which one of
these two links to. What a call returns ("From [`call`].") is shown where the call is.
"""

import json
import re
import sys

# Items, or all items of a module or type (`::*`), that need no example.
REASONS = {
    "persistent_map_core::codec::shape::VERSION": "a number that codecs and stores pass on",
    "persistent_map_testkit::store::*": "run by `conformance!` and `check_all`, not by hand",
    "persistent_map_testkit::bytes::*": "run by `byte_conformance!` and `check_all_bytes`, not by hand",
    "persistent_map_testkit::map::*": "run by `conformance!` and `check_all`, not by hand",
}


def code(item):
    return "\n".join(re.findall(r"^```.*?$(.*?)^```", item["docs"] or "", re.M | re.S))


class Crate:
    """The public items of a crate by their paths, each with its kind and the item that holds it."""

    def __init__(self, path):
        with open(path) as file:
            tree = json.load(file)
        self.index = tree["index"]
        self.items = {}
        self.holders = {}
        self.walk(tree["root"], None, None)

    def get(self, number):
        """An item of this crate."""
        item = self.index.get(str(number))
        return item if item and item["crate_id"] == 0 else None

    def walk(self, number, path, holder):
        item = self.get(number)
        if not item:
            return
        ((kind, inner),) = item["inner"].items()
        if kind == "use":
            self.walk(inner["id"], path, holder)
        elif kind == "impl":
            if inner["trait"] is None:
                for child in inner["items"]:
                    self.walk(child, path, holder)
        else:
            path = f"{path}::{item['name']}" if path else item["name"]
            if path in self.items:
                return
            self.items[path] = kind, item
            self.holders[item["id"]] = holder
            for child in inner.get("items", []) + inner.get("impls", []) if isinstance(inner, dict) else []:
                self.walk(child, path, item)

    def links(self, item):
        return [linked for number in item["links"].values() if (linked := self.get(number))]

    def is_shown(self, item):
        if code(item):
            return True
        holder = self.holders[item["id"]]
        where = [holder, *self.links(item), *self.links(holder)]
        if any(re.search(rf"\b{item['name']}\b", code(other)) for other in where):
            return True
        # An item's links are by their target or, without one, by their text.
        calls = re.findall(r"[Ff]rom\s\[(`[^`]+`)\](?:\((.+?)\))?", item["docs"] or "")
        sources = [self.get(item["links"].get(target or text)) for text, target in calls]
        return any(self.is_shown(source) for source in sources if source)


def main():
    shown, unshown, used = 0, [], set()
    for file in sys.argv[1:]:
        crate = Crate(file)
        for path, (kind, item) in crate.items.items():
            reasons = {path, f"{path.rpartition('::')[0]}::*"} & REASONS.keys()
            if kind == "module" or crate.is_shown(item):
                shown += 1
            elif reasons:
                used |= reasons
            else:
                unshown.append(path)
    for path in unshown:
        print(f"no example shows {path}")
    for path in REASONS.keys() - used:
        print(f"needs no reason: {path}")
    print(f"{shown} public items are shown in examples")
    return 1 if unshown or REASONS.keys() - used else 0


sys.exit(main())
