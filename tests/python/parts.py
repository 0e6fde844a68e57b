"""Which parts of a cell may leave (docs/policy.md, "k for every number"), as sets of Python.

A way of parting the records of a cell is a list with the part of each record; the records without a value are in the part
None. `people` is who each record is of.
"""

from collections import Counter


# What a person counts for: a number that is divided without a rest by how often people are counted.
WHOLE = 720720


def few(people, records, least):
    return len({people[record] for record in records}) < least


def records_of(way, part):
    return [record for record, own in enumerate(way) if own == part]


def presence(people, way, least):
    """Whether it may be told who has a value."""
    without = records_of(way, None)
    return not few(people, [r for r, part in enumerate(way) if part is not None], least) and (
        not without or not few(people, without, least)
    )


def fraction(people, way, least):
    return all(not records_of(way, part) or not few(people, records_of(way, part), least) for part in (True, False))


def merged(people, way, ranges, least):
    """The ranges of a histogram in groups, from the lowest up."""
    has_enough = lambda group: not (found := [r for part in group for r in records_of(way, part)]) or not few(
        people, found, least
    )
    groups, taken = [], []
    for part in range(ranges):
        taken.append(part)
        if has_enough(taken):
            groups.append(taken)
            taken = []
    while taken and not has_enough(taken) and groups:
        taken = groups.pop() + taken
    return groups + ([taken] if taken else [])


def in_groups(way, groups):
    first = {part: group[0] for group in groups for part in group}
    return [None if part is None else first[part] for part in way]


def finer(fine, coarse):
    parts = {}
    return all(parts.setdefault(one, other) == other for one, other in zip(fine, coarse))


def together(people, ways, least):
    """Whether nothing that can be made of what leaves of these ways is about few."""
    ways = list(ways)
    while True:
        at = 0
        while at < len(ways):
            others = ways[:at] + ways[at + 1 :]
            if len(set(ways[at])) < 2 or any(finer(other, ways[at]) for other in others):
                ways = others
            else:
                at += 1
        if len(ways) < 2:
            return all(not few(people, records_of(way, part), least) for way in ways for part in set(way))
        joined = [joins(people, ways, at, least) for at in range(len(ways))]
        if joined == ways:
            return False
        ways = joined


def joins(people, ways, at, least):
    """The way with parts taken together if whatever tells them apart is about enough people."""
    combinations = {}
    for record, part in enumerate(ways[at]):
        rest = tuple(way[record] for other, way in enumerate(ways) if other != at)
        combinations.setdefault(part, {}).setdefault(rest, []).append(record)
    group = {part: part for part in combinations}
    for one in combinations:
        for other in combinations:
            if group[one] != group[other] and tell_apart_many(people, combinations[one], combinations[other], least):
                old, new = group[other], group[one]
                group = {part: new if own == old else own for part, own in group.items()}
    return [group[part] for part in ways[at]]


def tell_apart_many(people, ones, others, least):
    """Whether what tells two parts apart is about enough people. For each rest that both have, it is about the people of
    the one or of the other."""
    sides = [[{people[r] for r in part[rest]} for part in (ones, others)] for rest in ones.keys() & others.keys()]
    always = set().union(*(one & other for one, other in sides))
    times = Counter(person for side in sides for person in side[0] ^ side[1] if person not in always)
    fewest = sum(min(sum(WHOLE // times[person] for person in side - always) for side in both) for both in sides)
    return len(always) * WHOLE + fewest >= least * WHOLE


def plan(people, ways, least):
    """Of each way what leaves: None, True, or the groups of its ranges. A way is its kind ("presence", "fraction",
    "histogram"), the field it is of if a record may be without it, the parts, and how many ranges there are."""
    plans, leaving, without = [], [], set()
    for kind, optional, way, ranges in ways:
        if optional in without:
            plans.append(None)
        elif kind == "histogram":
            wanted = least
            while True:
                groups = merged(people, way, ranges, wanted)
                grouped = in_groups(way, groups)
                if len(groups) == 1 or together(people, [*leaving, grouped], least):
                    break
                wanted *= 2
            plans.append(groups)
            leaving.append(grouped)
        else:
            alone = presence(people, way, least) if kind == "presence" else fraction(people, way, least)
            known = [None if part is None else 0 for part in way] if kind == "presence" else way
            if alone and together(people, [*leaving, known], least):
                plans.append(True)
                leaving.append(known)
            else:
                plans.append(None)
                if kind == "presence":
                    without.add(optional)
    return plans
