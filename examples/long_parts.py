"""The stock of parts of long problems: stages that a list of integers goes through, one block of code each.

Placeholders: `{x}` and `{i}` the theme's words for many and for one, `{k}` and `{l}` the part's constants, `{k}`
the smaller one. Every stage leaves its result in the variable `{x}`, every measure in `answer`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Theme:
    """What the numbers stand for. A theme decides words and names, nothing else."""

    title: str
    many: str
    one: str
    story: str


@dataclass(frozen=True)
class Origin:
    """How the list of integers comes about."""

    name: str
    parameter: str
    annotation: str
    themes: tuple[Theme, ...]
    call: str
    """Sentence about the parameter."""
    stdin: str
    """Sentence about the input."""
    from_parameter: str
    from_stdin: str


@dataclass(frozen=True)
class Stage:
    """A block of code: `{x}` becomes another list, or `answer` is found, or `answer` is told."""

    name: str
    phrase: str
    code: str
    helper: str = ""
    """A function that the code calls."""
    output: str = ""
    """What the answer is, for the section on output."""
    prints: str = ""
    """The code in a problem with standard input, where it differs."""
    constants: tuple[tuple[int, ...], ...] = ()
    """The values that each constant is drawn from."""


ORIGINS = (
    Origin(
        "plain",
        "{x}",
        "list[int]",
        (
            Theme(
                "Tide table",
                "levels",
                "level",
                "A gauge in the harbour writes down how far the water is above its mark.",
            ),
            Theme(
                "Frost watch", "readings", "reading", "A gardener reads a thermometer beside the tomatoes every hour."
            ),
            Theme("Card evening", "scores", "score", "Friends play cards and note what each round brought them."),
        ),
        "You are given the {x} as a list of integers.",
        "The first line holds the number of {x}, the second line the {x} themselves.",
        "",
        "n = int(input())\n{x} = list(map(int, input().split()))[:n]",
    ),
    Origin(
        "until-zero",
        "numbers",
        "list[int]",
        (
            Theme("Lift log", "moves", "move", "A lift keeps a log of how many floors it went up or down."),
            Theme("Radio signal", "samples", "sample", "A receiver turns a weak signal into a row of whole numbers."),
        ),
        "You are given a list of integers; the {x} are those before the first 0, or all of them without a 0.",
        "Every line holds one integer. The {x} end at the first 0, which is always there.",
        "{x} = []\nfor number in numbers:\n    if number == 0:\n        break\n    {x}.append(number)",
        "{x} = []\nwhile True:\n    number = int(input())\n    if number == 0:\n        break\n    {x}.append(number)",
    ),
    Origin(
        "repeated",
        "pairs",
        "list[list[int]]",
        (
            Theme(
                "Short notation",
                "notes",
                "note",
                "A composer numbers the notes of a tune and writes repeated ones in short.",
            ),
            Theme("Slow sensor", "values", "value", "A sensor saves space: it stores a value only when it changes."),
        ),
        "You are given pairs of a {i} and how many times in a row it came; write each {i} that often.",
        "The first line holds the number of lines that follow; each of them holds a {i} and how many times in a row it "
        "came. Write each {i} that often.",
        "{x} = []\nfor {i}, times in pairs:\n    {x} += [{i}] * times",
        "{x} = []\nfor _ in range(int(input())):\n    {i}, times = map(int, input().split())\n    {x} += [{i}] * times",
    ),
    Origin(
        "row-sums",
        "rows",
        "list[list[int]]",
        (
            Theme(
                "Pocket money",
                "amounts",
                "amount",
                "Mara writes down what enters and leaves her purse, a row for every week.",
            ),
            Theme(
                "League table",
                "results",
                "result",
                "Every team of a league has a row with its points, bonus and penalty included.",
            ),
        ),
        "You are given a table of integers as a list of rows; the {x} are the sums of its rows.",
        "The first line holds the number of rows of a table, each further line one row of integers. The {x} "
        "are the sums "
        "of the rows.",
        "{x} = [sum(row) for row in rows]",
        "{x} = []\nfor _ in range(int(input())):\n    {x}.append(sum(map(int, input().split())))",
    ),
    Origin(
        "column-tops",
        "rows",
        "list[list[int]]",
        (
            Theme("Long jump", "marks", "mark", "Judges write a row for every round, with a column for each athlete."),
            Theme(
                "Weather map", "highs", "high", "A station writes a row for every day, with a column for each place."
            ),
        ),
        "You are given a table of integers as a list of rows of one length; the {x} are the largest of each column.",
        "The first line holds the number of rows of a table, each further line one row of integers, all of one length. "
        "The {x} are the largest of each column.",
        "{x} = []\nfor column in zip(*rows):\n    {x}.append(max(column))",
        "rows = []\nfor _ in range(int(input())):\n    rows.append(list(map(int, input().split())))\n"
        "{x} = [max(column) for column in zip(*rows)]",
    ),
    Origin(
        "commands",
        "commands",
        "list[str]",
        (
            Theme(
                "Desk calculator",
                "entries",
                "entry",
                "An old calculator prints on paper and lets its owner correct what was typed.",
            ),
            Theme(
                "Score board",
                "points",
                "point",
                "The boy at the score board listens to the referee, who often has second thoughts.",
            ),
        ),
        "You are given a list of commands: an integer is written down as the next {i}, `undo` removes the last {i} "
        "(if there is one), `flip` changes the sign of all {x} so far.",
        "The only line holds commands with blanks between them: an integer is written down as the next {i}, `undo` "
        "removes the last {i} (if there is one), `flip` changes the sign of all {x} so far.",
        '{x} = []\nfor command in commands:\n    if command == "undo":\n        {x} = {x}[:-1]\n'
        '    elif command == "flip":\n        {x} = [-{i} for {i} in {x}]\n    else:\n        {x}.append(int(command))',
        '{x} = []\nfor command in input().split():\n    if command == "undo":\n        {x} = {x}[:-1]\n'
        '    elif command == "flip":\n        {x} = [-{i} for {i} in {x}]\n    else:\n        {x}.append(int(command))',
    ),
    Origin(
        "clock",
        "times",
        "list[str]",
        (
            Theme(
                "Bus stop",
                "departures",
                "departure",
                "A timetable at the bus stop has faded, but the times can still be read.",
            ),
            Theme("Bird watch", "sightings", "sighting", "A bird watcher notes the time of every heron that passes."),
        ),
        "You are given a list of times of day such as 7:05; the {x} are the minutes since midnight.",
        "The only line holds times of day such as 7:05 with blanks between them. The {x} are the minutes "
        "since midnight.",
        '{x} = []\nfor time in times:\n    hours, minutes = time.split(":")\n'
        "    {x}.append(int(hours) * 60 + int(minutes))",
        '{x} = []\nfor time in input().split():\n    hours, minutes = time.split(":")\n'
        "    {x}.append(int(hours) * 60 + int(minutes))",
    ),
    Origin(
        "run-lengths",
        "text",
        "str",
        (
            Theme("Bead string", "runs", "run", "Nora threads beads on a string, one letter for each colour."),
            Theme("Striped scarf", "stripes", "stripe", "A knitter plans a scarf, one letter for each row of wool."),
        ),
        "You are given a text. Cut it into groups of equal neighbours; the {x} are the lengths of the groups.",
        "The only line holds a text. Cut it into groups of equal neighbours; the {x} are the lengths of the groups.",
        '{x} = []\nprevious = ""\nfor char in text:\n    if char == previous:\n        {x}[-1] += 1\n    else:\n'
        "        {x}.append(1)\n    previous = char",
        '{x} = []\nprevious = ""\nfor char in input():\n    if char == previous:\n        {x}[-1] += 1\n    else:\n'
        "        {x}.append(1)\n    previous = char",
    ),
    Origin(
        "hidden",
        "text",
        "str",
        (
            Theme(
                "Torn receipt", "prices", "price", "A scanner reads a torn receipt and makes a mess of the words on it."
            ),
            Theme(
                "Captain's diary", "depths", "depth", "A captain scribbled the depth of the sea between other remarks."
            ),
        ),
        "You are given a text in which the {x} are hidden: each longest group of digits is one of them.",
        "The only line holds a text in which the {x} are hidden: each longest group of digits is one of them.",
        '{x} = []\ndigits = ""\nfor char in text + " ":\n    if char.isdigit():\n        digits += char\n'
        '    elif digits:\n        {x}.append(int(digits))\n        digits = ""',
        '{x} = []\ndigits = ""\nfor char in input() + " ":\n    if char.isdigit():\n        digits += char\n'
        '    elif digits:\n        {x}.append(int(digits))\n        digits = ""',
    ),
)

CHANGES = (
    Stage(
        "differences",
        "Replace the {x} by the absolute differences between neighbours, one fewer.",
        "{x} = [abs({x}[j + 1] - {x}[j]) for j in range(len({x}) - 1)]",
    ),
    Stage(
        "running-totals",
        "Replace every {i} by the sum of itself and all before it.",
        "total = 0\ntotals = []\nfor {i} in {x}:\n    total += {i}\n    totals.append(total)\n{x} = totals",
    ),
    Stage(
        "unique",
        "Leave out every {i} that came before.",
        "seen = []\nfor {i} in {x}:\n    if {i} not in seen:\n        seen.append({i})\n{x} = seen",
    ),
    Stage(
        "collapse",
        "Leave out every {i} that equals the one right before it.",
        "kept = []\nfor {i} in {x}:\n    if not kept or kept[-1] != {i}:\n        kept.append({i})\n{x} = kept",
    ),
    Stage(
        "merge",
        "Write the {x} down one after another; as long as the last two are equal, replace both by their sum.",
        "merged = []\nfor {i} in {x}:\n    merged.append({i})\n"
        "    while len(merged) > 1 and merged[-1] == merged[-2]:\n"
        "        merged.append(merged.pop() + merged.pop())\n{x} = merged",
    ),
    Stage(
        "peaks",
        "Keep the {x} that are larger than both neighbours; the first and the last never are.",
        "peaks = []\nfor j in range(1, len({x}) - 1):\n    if {x}[j - 1] < {x}[j] > {x}[j + 1]:\n"
        "        peaks.append({x}[j])\n{x} = peaks",
    ),
    Stage(
        "records",
        "Keep the first {i} and every {i} that is larger than all before it.",
        "records = []\nfor {i} in {x}:\n    if not records or {i} > records[-1]:\n        records.append({i})\n"
        "{x} = records",
    ),
    Stage(
        "clamp",
        "Replace every {i} below {k} by {k} and every {i} above {l} by {l}.",
        "clamped = []\nfor {i} in {x}:\n    if {i} < {k}:\n        {i} = {k}\n    elif {i} > {l}:\n        {i} = {l}\n"
        "    clamped.append({i})\n{x} = clamped",
        constants=((1, 2, 3, 4), (5, 6, 7, 8, 9)),
    ),
    Stage(
        "digit-sums",
        "Replace every {i} by the sum of its digits; a minus sign does not count.",
        "{x} = [digit_sum({i}) for {i} in {x}]",
        "def digit_sum(n):\n    n = abs(n)\n    total = 0\n    while n > 0:\n        total += n % 10\n"
        "        n //= 10\n"
        "    return total",
    ),
    Stage(
        "halvings",
        "Replace every {i} by the number of steps it takes to get from it down to 1, where a step halves an "
        "even number "
        "and adds 1 to an odd one; what is below 2 takes no step.",
        "{x} = [steps_to_one({i}) for {i} in {x}]",
        "def steps_to_one(n):\n    steps = 0\n    while n > 1:\n        if n % 2 == 0:\n            n //= 2\n"
        "        else:\n            n += 1\n        steps += 1\n    return steps",
    ),
    Stage(
        "primes",
        "Keep the {x} that are prime numbers.",
        "{x} = [{i} for {i} in {x} if is_prime({i})]",
        "def is_prime(n):\n    if n < 2:\n        return False\n    divisor = 2\n    while divisor * divisor <= n:\n"
        "        if n % divisor == 0:\n            return False\n        divisor += 1\n    return True",
    ),
    Stage(
        "above-average",
        "Keep the {x} that are larger than the average of all {x}.",
        "total = sum({x})\nkept = []\nfor {i} in {x}:\n    if {i} * len({x}) > total:\n        kept.append({i})\n"
        "{x} = kept",
    ),
    Stage(
        "trim",
        "Sort the {x} in rising order and leave out the first and the last of them.",
        "{x} = sorted({x})[1:-1]",
    ),
    Stage(
        "rotate",
        "Move the first {k} {x} behind the others; if there are no more than {k}, nothing changes.",
        "{x} = {x}[{k}:] + {x}[:{k}]",
        constants=((2, 3),),
    ),
    Stage(
        "multiples",
        "Keep the {x} that are multiples of {k}.",
        "{x} = [{i} for {i} in {x} if {i} % {k} == 0]",
        constants=((2, 3, 4, 5),),
    ),
    Stage(
        "alternate-signs",
        "Change the sign of the second, the fourth and every further second one of the {x}.",
        "signed = []\nfor j, {i} in enumerate({x}):\n    if j % 2 == 1:\n        {i} = -{i}\n    signed.append({i})\n"
        "{x} = signed",
    ),
)

MEASURES = (
    Stage(
        "longest-rise",
        "the length of the longest run of neighbours in which every {i} is larger than the one before (0 without {x})",
        "answer = length = 0\nfor j, {i} in enumerate({x}):\n    if j > 0 and {i} > {x}[j - 1]:\n        length += 1\n"
        "    else:\n        length = 1\n    if length > answer:\n        answer = length",
    ),
    Stage(
        "best-stretch",
        "the largest sum of a stretch of neighbours, where the empty stretch has the sum 0",
        "answer = current = 0\nfor {i} in {x}:\n    current += {i}\n    if current < 0:\n        current = 0\n"
        "    if current > answer:\n        answer = current",
    ),
    Stage(
        "pairs",
        "the number of pairs of {x} at two different places whose sum is a multiple of {k}",
        "answer = 0\nfor j, {i} in enumerate({x}):\n    for other in {x}[:j]:\n        if ({i} + other) % {k} == 0:\n"
        "            answer += 1",
        constants=((2, 3, 4, 5),),
    ),
    Stage(
        "inversions",
        "the number of pairs of {x} of which the earlier one is the larger one",
        "answer = 0\nfor j, {i} in enumerate({x}):\n    for earlier in {x}[:j]:\n        if earlier > {i}:\n"
        "            answer += 1",
    ),
    Stage(
        "most-frequent",
        "the {i} that comes most often, the smallest one of several (0 without {x})",
        "answer = most = 0\nfor {i} in sorted(set({x})):\n    times = {x}.count({i})\n    if times > most:\n"
        "        answer = {i}\n        most = times",
    ),
    Stage(
        "second-largest",
        "the second largest of the different {x} (0 if there are fewer than two)",
        "answer = 0\ndistinct = sorted(set({x}))\nif len(distinct) > 1:\n    answer = distinct[-2]",
    ),
    Stage(
        "best-window",
        "the largest sum of {k} neighbours (0 if there are fewer than {k})",
        "answer = 0\nfor j in range(len({x}) - {k} + 1):\n    total = sum({x}[j:j + {k}])\n"
        "    if j == 0 or total > answer:\n        answer = total",
        constants=((2, 3),),
    ),
    Stage(
        "needed",
        "how many {x} it takes from the first one on until their sum is at least {k} (-1 if it never is)",
        "answer = total = 0\nwhile total < {k} and answer < len({x}):\n    total += {x}[answer]\n    answer += 1\n"
        "if total < {k}:\n    answer = -1",
        constants=((5, 6, 7, 8, 9, 10, 12, 15),),
    ),
    Stage(
        "balance-point",
        "the first position, counted from 0, where the {x} before it and the {x} after it have the same sum "
        "(-1 without one)",
        "answer = -1\nleft, right = 0, sum({x})\nfor j, {i} in enumerate({x}):\n    right -= {i}\n"
        "    if left == right:\n"
        "        answer = j\n        break\n    left += {i}",
    ),
    Stage(
        "spread",
        "the difference between the largest and the smallest of the {x} (0 without {x})",
        "answer = 0\nif {x}:\n    answer = max({x}) - min({x})",
    ),
    Stage(
        "common-divisor",
        "the largest integer that divides all {x} (0 without {x} or if all are 0)",
        "answer = 0\nfor {i} in {x}:\n    {i} = abs({i})\n    while {i} > 0:\n        answer, {i} = {i}, answer % {i}",
    ),
    Stage(
        "longest-repeat",
        "the length of the longest run of equal neighbours (0 without {x})",
        "answer = length = 0\nfor j, {i} in enumerate({x}):\n    if j == 0 or {i} != {x}[j - 1]:\n        length = 0\n"
        "    length += 1\n    answer = max(answer, length)",
    ),
)

TELLINGS = (
    Stage("number", "{verb} it.", "return answer", prints="print(answer)", output="That number."),
    Stage(
        "grade",
        "{verb} `low` if it is below {k}, `middle` if it is from {k} to below {l}, and `high` otherwise.",
        'if answer < {k}:\n    return "low"\nif answer < {l}:\n    return "middle"\nreturn "high"',
        prints='if answer < {k}:\n    print("low")\nelif answer < {l}:\n    print("middle")\nelse:\n    print("high")',
        output="`low`, `middle` or `high`.",
        constants=((1, 2, 3), (4, 5, 6, 7, 8)),
    ),
    Stage(
        "parity",
        "{verb} `even` or `odd`, whichever it is.",
        output="`even` or `odd`.",
        code='if answer % 2 == 0:\n    return "even"\nreturn "odd"',
        prints='if answer % 2 == 0:\n    print("even")\nelse:\n    print("odd")',
    ),
    Stage(
        "with-rest",
        "{verb} it and how many {x} there are now, {both}.",
        "return [answer, len({x})]",
        prints="print(answer, len({x}))",
        output="The two numbers with a blank between them.",
    ),
    Stage(
        "base",
        "{verb} its digits in base {k}{as_text}, without a sign; 0 has the one digit 0.",
        "rest = abs(answer)\ndigits = str(rest % {k})\nwhile rest >= {k}:\n    rest //= {k}\n"
        "    digits = str(rest % {k}) + digits\nreturn digits",
        prints="rest = abs(answer)\ndigits = str(rest % {k})\nwhile rest >= {k}:\n    rest //= {k}\n"
        "    digits = str(rest % {k}) + digits\nprint(digits)",
        output="The digits in base {k}.",
        constants=((2, 3, 4, 5),),
    ),
)
