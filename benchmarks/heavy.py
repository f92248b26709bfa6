"""Twenty programs that compute for some tens of milliseconds each, in the ways that contest solutions do."""

from __future__ import annotations

PROGRAMS = {
    "sieve": """
def f(n):
    prime = [True] * (n + 1)
    prime[0] = prime[1] = False
    i = 2
    while i * i <= n:
        if prime[i]:
            for j in range(i * i, n + 1, i):
                prime[j] = False
        i += 1
    return sum(prime)
""",
    "collatz": """
def f(n):
    best = 0
    for start in range(1, n // 60):
        steps, x = 0, start
        while x != 1:
            if x % 2:
                x = 3 * x + 1
            else:
                x //= 2
            steps += 1
        best = max(best, steps)
    return best
""",
    "knapsack": """
def f(n):
    capacity = n // 60
    best = [0] * (capacity + 1)
    for item in range(1, 60):
        weight, value = item * 7 % 50 + 1, item * 13 % 41
        for room in range(capacity, weight - 1, -1):
            if best[room - weight] + value > best[room]:
                best[room] = best[room - weight] + value
    return best[capacity]
""",
    "edit distance": """
def f(n):
    a = "abcde" * (n // 2500)
    b = "badce" * (n // 2500)
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (x != y))
    return row[-1]
""",
    "queens": """
def f(n):
    size = 6 + n // 200_000
    def place(row, columns, left, right):
        if row == size:
            return 1
        count = 0
        for column in range(size):
            if column not in columns and row + column not in left and row - column not in right:
                count += place(row + 1, columns | {column}, left | {row + column}, right | {row - column})
        return count
    return place(0, frozenset(), frozenset(), frozenset())
""",
    "fibonacci": """
def f(n):
    def fib(k):
        if k < 2:
            return k
        return fib(k - 1) + fib(k - 2)
    return fib(18 + n // 100_000)
""",
    "matrix": """
def f(n):
    size = 40 + n // 10_000
    a = [[(i * j) % 7 for j in range(size)] for i in range(size)]
    b = [[0] * size for _ in range(size)]
    for i in range(size):
        for j in range(size):
            total = 0
            for k in range(size):
                total += a[i][k] * a[k][j]
            b[i][j] = total
    return b[-1][-1]
""",
    "bubble sort": """
def f(n):
    items = [(i * 7919) % 1009 for i in range(n // 300)]
    for i in range(len(items)):
        for j in range(len(items) - 1 - i):
            if items[j] > items[j + 1]:
                items[j], items[j + 1] = items[j + 1], items[j]
    return items[0]
""",
    "breadth first": """
from collections import deque
def f(n):
    size = 150 + n // 2000
    seen = {(0, 0)}
    queue = deque([(0, 0, 0)])
    while queue:
        x, y, steps = queue.popleft()
        if x == size - 1 and y == size - 1:
            return steps
        for dx, dy in ((0, 1), (1, 0), (0, -1), (-1, 0)):
            place = x + dx, y + dy
            if 0 <= place[0] < size and 0 <= place[1] < size and place not in seen and (place[0] * place[1]) % 5 != 4:
                seen.add(place)
                queue.append((*place, steps + 1))
    return -1
""",
    "word counts": """
def f(n):
    counts = {}
    for i in range(n):
        word = "w" + str(i * 31 % 997)
        if word in counts:
            counts[word] += 1
        else:
            counts[word] = 1
    return max(counts.values())
""",
    "palindromes": """
def f(n):
    count = 0
    for i in range(n):
        text = str(i)
        if text == text[::-1]:
            count += 1
    return count
""",
    "gcd sums": """
def f(n):
    total = 0
    for a in range(1, 300):
        for b in range(1, n // 1000):
            x, y = a, b
            while y:
                x, y = y, x % y
            total += x
    return total
""",
    "union find": """
def f(n):
    parent = list(range(n))
    def find(x):
        while parent[x] != x:
            parent[x] = parent[parent[x]]
            x = parent[x]
        return x
    for i in range(n):
        a, b = find(i), find(i * 17 % n)
        if a != b:
            parent[a] = b
    return sum(1 for i in range(n) if parent[i] == i)
""",
    "dijkstra": """
import heapq
def f(n):
    size = n // 8
    best = {0: 0}
    heap = [(0, 0)]
    while heap:
        cost, node = heapq.heappop(heap)
        if cost > best[node]:
            continue
        for k in (3, 5, 11):
            other, total = node * k % size, cost + k
            if total < best.get(other, 1 << 60):
                best[other] = total
                heapq.heappush(heap, (total, other))
    return len(best)
""",
    "permutations": """
def f(n):
    found = 0
    def extend(prefix, rest):
        nonlocal found
        if not rest:
            found += prefix[0] < prefix[-1]
            return
        for i, item in enumerate(rest):
            extend([*prefix, item], rest[:i] + rest[i + 1:])
    extend([], list(range(6 + n // 80_000)))
    return found
""",
    "life": """
def f(n):
    cells = {(0, 1), (1, 2), (2, 0), (2, 1), (2, 2), (10, 10), (10, 11), (10, 12)}
    for _ in range(n // 400):
        near = {}
        for x, y in cells:
            for dx in (-1, 0, 1):
                for dy in (-1, 0, 1):
                    if dx or dy:
                        near[x + dx, y + dy] = near.get((x + dx, y + dy), 0) + 1
        cells = {cell for cell, count in near.items() if count == 3 or count == 2 and cell in cells}
    return len(cells)
""",
    "string building": """
def f(n):
    parts = []
    for i in range(n):
        if i % 15 == 0:
            parts.append("FizzBuzz")
        elif i % 5 == 0:
            parts.append("Buzz")
        elif i % 3 == 0:
            parts.append("Fizz")
        else:
            parts.append(str(i))
    return len("".join(parts))
""",
    "class with state": """
class Account:
    def __init__(self):
        self.balance = 0
    def move(self, amount):
        if self.balance + amount >= 0:
            self.balance += amount
            return True
        return False
def f(n):
    account, refused = Account(), 0
    for i in range(n):
        if not account.move((i * 7 % 13) - 6):
            refused += 1
    return refused
""",
    "two sums": """
def f(n):
    items = [i * 37 % 1999 for i in range(n // 250)]
    count = 0
    for i in range(len(items)):
        for j in range(i + 1, len(items)):
            if items[i] + items[j] == 2000:
                count += 1
    return count
""",
    "base conversion": """
def f(n):
    total = 0
    for number in range(n // 6):
        digits = ""
        while number:
            number, digit = divmod(number, 7)
            digits = "0123456"[digit] + digits
        total += len(digits)
    return total
""",
}
SIZE = 200_000
