"""Histories of what a small shop's inbox received, made up from a seed: few people, few values, many collisions.

`history(seed, n)` is a beginning of `history(seed, m)` for n < m. Declarations are made up in tests/property/declarations.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from hypothesis import strategies as st

from tests.property.declarations import declarations, variant
from tests.property.reference.history import Batch, History, Line
from tests.property.reference.values import DAY, HOUR, SECOND, Number, compact, micros_of

__all__ = ["as_of", "declarations", "histories", "history", "printed", "smallest", "variant"]

START = micros_of(datetime(2026, 1, 30, 21, 47, tzinfo=UTC))
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

USERS: list[Any] = ["u1", "u2", "u3", "u4", "Ü-5 \u200b", "ИПЕК-ΑΣ", "İpek", Number("42"), "42"]
NOBODY: list[Any] = [
    "null",
    "0",
    "00000000-0000-0000-0000-000000000000",
    "undefined",
    "Guest",
    "",
    "  ",
    "bot-7",
    "x",
    "u9",
    "z" * 300,
]
EMAILS = ["ann@shop.example", "Bob@Shop.example", "c.c+x@shop.example", "dörte@bücher.example", "e@e.co"]
OFFICE = ["info@shop.example", "INFO@shop.example "]
PHONES = ["+44 20 7946 0958", "020 7946 0958", "+442079460958", "(202) 555-0143"]
PHONES += ["+1 202-555-0143", "+49 30 12345678", "12", "+1 1"]
AMOUNTS: list[Any] = [
    *map(Number, ("10.50", "10.5", "49.9", "0.125", "10.005", "1e2", "-5", "0", "1000000", "33.333", "19.99", "1")),
    *("19.99", "10.00", "7", "abc", "", "12,50", True, None),
]
CURRENCIES: list[Any] = ["EUR", "EUR", "EUR", "USD", "JPY", "BHD", None]
UNREADABLE: list[Any] = ["yesterday", "2026-13-45T00:00:00Z", "", "1066-10-14T09:00:00Z", "2026-02-30T10:00:00Z", True]
CAMPAIGNS: list[Any] = [
    {"name": "spring", "source": "google", "medium": "cpc"},
    {"name": "spring", "source": "bing", "medium": "cpc"},
    {"name": "news-7", "source": "mailing", "medium": "email"},
    {"source": "insta", "medium": "social"},
]
REFERRERS = ["", "", "https://www.google.com/", "https://blog.example/post?a=1"]
SOURCES_OF_DATA = ["bought", "bought", "panel"]
CONSENT_STRINGS: list[dict[str, Any]] = [
    {"tcf": "CQuZP8AQuZP8AEsAAAENC0FoALAAAEIAAAAAF5wAgAFALzAAAAAA.IAAA.YAAAAAAAAAAA"},
    {"gcs": "G110"},
    {"scopes": ["marketing"]},
    {"tcf": "CQuZP8AQuZP8AEs", "gcs": "G100"},
    {"usp": "1YYN"},
    {"scopes": []},
    {"gcd": "13t3t3t3t5", "usp": "1YNN"},
    {"gpp": "DBABBg~BAUAAABA.QA"},
    {"scopes": ["ads", "marketing"], "gcs": "G111"},
    {"gpp": "DBABLA", "usp": "odd", "gcs": ["G111"]},
]
"""What consent managers tell beside or instead of an answer by category; some of it can't be read."""
CONSENT_LISTS: list[dict[str, Any]] = [
    {"allowedConsentIds": ["marketing", "analytics"], "deniedConsentIds": ["ads"], "provider": "custom"},
    {"allowedConsentIds": ["ads"], "deniedConsentIds": [], "provider": "ketch", "resolutionStrategy": "or"},
    {"allowedConsentIds": ["marketing", "ads"], "deniedConsentIds": ["ads"]},
    {"deniedConsentIds": ["analytics"]},
    {"allowedConsentIds": ["marketing"], "deniedConsentIds": "ads"},
    {"allowedConsentIds": [], "deniedConsentIds": []},
    {"allowedConsentIds": ["analytics", "marketing", "ads"]},
]
"""What RudderStack's SDKs tell of consent; one of them can't be read."""
NOTES = ["naïve 🎈", "a\tb", 'quote " and \\', "رسالة", "e\u0301", "\u2028", "line\nbreak", "</script>"]


def history(seed: int, size: int = 200, debatable: bool = False) -> History:
    """About `size` lines in batches of several hours or days. The same for the same arguments.

    `debatable` adds what docs/semantics.md does not decide: odd dates, ids that are objects, control characters, numbers such
    as ` 7 ` or `inf`.
    """
    return _Shop(seed, debatable).play(size)


def histories(largest: int = 200) -> st.SearchStrategy[History]:
    """Histories for Hypothesis: a failing one shrinks to its shortest beginning; `smallest` takes lines out of the middle."""
    return st.builds(history, seed=st.integers(0, 2**32 - 1), size=st.integers(0, largest))


def as_of(received: History, seed: int) -> int:
    """An instant to look at a history from, in UTC microseconds: mostly its end, else before or after it."""
    times = [line.received_at for batch in received for line in batch.lines] or [START]
    return max(times) + Random(f"as of {seed}").choice([0, 0, 0, 2 * HOUR, -DAY, -3 * DAY, DAY, 9 * DAY, 40 * DAY])


def printed(received: History) -> str:
    """A history to read: a line per batch and per envelope."""
    lines = []
    for batch in received:
        lines.append(f"batch {batch.batch_seq} of hour {batch.hour}: {len(batch.lines)} lines")
        lines += [f"  {offset}: {line.envelope()}" for offset, line in enumerate(batch.lines)]
    return "\n".join(lines)


def smallest(received: History, fails: Callable[[History], bool]) -> History:
    """A history that still fails and no longer does when any one batch or line is taken out. Places and ids stay as they can."""
    assert fails(received), "the history does not fail to begin with"
    chunk = max(1, sum(len(batch.lines) for batch in received) // 2)
    while True:
        places = [(i, j) for i, batch in enumerate(received) for j in range(len(batch.lines))]
        is_smaller = False
        for start in range(0, len(places), chunk):
            out = set(places[start : start + chunk])
            left = [
                replace(batch, lines=tuple(line for j, line in enumerate(batch.lines) if (i, j) not in out))
                for i, batch in enumerate(received)
            ]
            if fails(left):
                received, is_smaller = left, True
                break
        if not is_smaller and chunk == 1:
            break
        chunk = chunk if is_smaller else max(1, chunk // 2)
    for batch in list(received):
        without = [each for each in received if each is not batch]
        received = without if fails(without) else received
    return received


def _of_one_call(before: Line, line: Line) -> Line:
    """The line as if it had come in one call with the line before it, where both can be of a batch call."""
    is_any_alone = any(each is not None for line in (before, line) for each in (line.type, line.line, line.reason))
    return line if is_any_alone else replace(before, message=line.message)


class _Shop:
    """The shop while a history is being made: its clock, its people's devices, and what it has sent."""

    def __init__(self, seed: int, debatable: bool) -> None:
        self.random = Random(f"history {seed}")
        self.others = Random(f"others {seed}")
        self.debatable = debatable
        self.now = START
        self.batches: History = []
        self.lines: list[Line] = []
        self.sent: list[Line] = []
        self.ordered: list[tuple[int, str]] = []
        self.person_at: dict[str, int | None] = {}
        self.skews = {f"d{i}": self.random.choice([0, 0, 0, 3600, -90, 2 * 86400, -86400]) * SECOND for i in range(10)}
        self.count = 0
        self.is_hasty = self.random.random() < 0.3

    def play(self, size: int) -> History:
        for _ in range(size):
            self._tick()
            self.lines.append(self._told() if self.others.random() < 0.12 else self._line())
            if len(self.lines) > 1 and self.others.random() < 0.8:
                self.lines[-1] = _of_one_call(*self.lines[-2:])
        self._seal()
        return self.batches

    def _is(self, chance: float) -> bool:
        return self.random.random() < chance

    def _odd(self, plain: Any, odd: list[Any]) -> Any:
        return self.random.choice(odd) if self.debatable and self._is(0.15) else plain

    def _tick(self) -> None:
        steps = [0, 0, 0, 1, SECOND, 40 * SECOND, 7 * 60 * SECOND, 25 * 60 * SECOND]
        step = self.random.choice(steps)
        if self._is(0.02 if self.is_hasty else 0.07):
            step = self.random.choice([HOUR, 3 * HOUR, 20 * HOUR, DAY, 4 * DAY])
        later = self.now + step
        if later // HOUR != self.now // HOUR or self._is(0.05):
            self._seal()
            while self._is(0.1):
                self._seal()
        self.now = later

    def _seal(self) -> None:
        hour = (_EPOCH + timedelta(microseconds=self.now)).strftime("%Y%m%d%H")
        self.batches.append(Batch(len(self.batches) + 1, hour, tuple(self.lines)))
        self.lines = []

    def _line(self) -> Line:
        if self.sent and self._is(0.12):
            return self._again()
        if self._is(0.05):
            return self._broken()
        line = self._event()
        self.sent.append(line)
        return line

    def _told(self) -> Line:
        """A row of profile data: about somebody of the shop, about two of them, or about people who never come."""
        person = self.random.randrange(7)
        self.count += 1
        message: dict[str, Any] = {"messageId": f"told {self.count}", "traits": self._traits(person)}
        if self._is(0.3):
            message["traits"]["email"] = self.random.choice([*EMAILS, *OFFICE, "nobody@far.example"])
        if self._is(0.3):
            message["userId"] = self._user(person)
        if self._is(0.15):
            message["anonymousId"] = f"d{2 + self.random.randrange(9)}"
        if self._is(0.1):
            message["context"] = {"traits": self._traits(person), "consent": {"categoryPreferences": {"marketing": True}}}
        if self._is(0.5):
            message["timestamp"] = self._instant(self.now - self.random.choice([0, HOUR, 5 * DAY, 33 * DAY]))
        line = Line(self.random.choice(SOURCES_OF_DATA), self.now, compact(message), None, "profile_data", None, self.count)
        self.sent.append(line)
        return line

    def _again(self) -> Line:
        sent = self.sent[-self.random.randint(1, 8) :] if self._is(0.6) else self.sent
        line = replace(self.random.choice(sent), received_at=self.now)
        if line.sent_at is not None and self._is(0.5):
            line = replace(line, sent_at=line.sent_at + self.random.choice([SECOND, 600 * SECOND]))
        if self._is(0.08):
            line = replace(line, source="server" if line.source == "web" else "web")
        return line

    def _broken(self) -> Line:
        line = Line("web", self.now, None, ip="203.0.113.9")
        return self.random.choice(
            [
                replace(line, message='"{\\"userId\\": "', reason="not_json"),
                replace(line, message='{"type":"track","userId":"u1","event":"Signed Up"}', reason="too_large"),
                replace(line, reason="erased"),
                replace(line, source="orders", line=self.random.randint(1, 9), message='"1;2"', reason="row"),
                replace(line, message='"text"'),
                replace(line, message='[{"type":"track","userId":"u1"}]', type="track"),
                replace(line, message="null", type="track"),
                replace(line, message='{"type":"purchase","userId":"u1"}'),
                replace(line, message='{"userId":"u2","anonymousId":"d1"}'),
                replace(line, message='{"type":7,"userId":"u2"}'),
            ]
        )

    def _event(self) -> Line:
        person = self.random.randrange(7)
        device = f"d{self.random.randrange(2)}" if self._is(0.3) else f"d{2 + person}"
        message: dict[str, Any] = {"messageId": self._message_id(), "type": "track", "anonymousId": device}
        if self._is(0.15):
            del message["anonymousId"]
        self._act(message, person, device)
        if self._is(0.04):
            message["userId"] = self.random.choice(NOBODY)
        if self._is(0.02):
            message["anonymousId"] = self.random.choice(NOBODY)
        if self._is(0.02):
            message = {name: value for name, value in message.items() if name not in ("userId", "anonymousId", "traits")}
        if self.debatable and self._is(0.05):
            message["userId"] = self.random.choice(
                [{"id": Number("1")}, [], True, "\x1fu1\x1f", "u\x001", Number("1.0"), Number("1e3")]
            )
        self._add_context(message, person)
        sent_at = self._add_time(message, device)
        if self.count % 5 == 0:  # no draw: what else is made up stays the same
            self._add_link(message, device)
        endpoint = None
        if self._is(0.4):
            endpoint = message["type"]
            if self._is(0.5):
                message["type"] = self.random.choice([None, "purchase", "identify"])
        source = self.random.choice(["web", "web", "web", "server", "orders"])
        ip = "203.0.113.7" if source == "web" else None
        return Line(
            source, self.now, compact(message, self._is(0.2)), sent_at, endpoint, ip, self.count if source == "orders" else None
        )

    def _message_id(self) -> Any:
        self.count += 1
        chance = self.random.random()
        if chance < 0.04:
            return self.random.choice([None, ""])
        return Number(str(self.count)) if chance < 0.06 else f"m{self.count}" + ("é" if chance < 0.1 else "")

    def _act(self, message: dict[str, Any], person: int, device: str) -> None:
        known = self.person_at.get(device)
        if known is not None and self._is(0.85):
            message["userId"] = self._user(known)
        action = self.random.choices(
            ["page", "screen", "log in", "log out", "track", "order", "refund", "sign up", "alias", "group"],
            [22, 3, 16, 6, 22, 14, 6, 4, 3, 4],
        )[0]
        if action in ("page", "screen"):
            message |= {"type": action, "name": self.random.choice(["Home", "Cart"]), "properties": {"category": "books"}}
        elif action in ("log in", "sign up"):
            self.person_at[device] = person
            message["userId"] = self._user(person)
            message["traits"] = self._traits(person)
            message["type"] = "identify" if action == "log in" else "track"
            if action == "sign up":
                message |= {"event": "Signed Up", "properties": {"email": self._email(person)}}
        elif action == "log out":
            self.person_at[device] = None
            message |= {"event": "Signed Out", "properties": self._odd({}, ["text", [], None])}
        elif action == "track":
            message |= {"event": self.random.choice(["Product Viewed", "Product Added"]), "properties": self._product()}
        elif action == "order":
            message |= {"event": "Order Completed", "properties": self._order(person)}
            if self._is(0.3):
                message["userId"] = self._user(person)
        elif action == "refund":
            whose, order_id = self.random.choice(self.ordered or [(person, "o0")])
            if self._is(0.7):
                message["userId"] = self._user(whose)
            message |= {"event": "Order Refunded", "properties": {**self._order(person), "order_id": order_id}}
        elif action == "alias":
            message |= {"type": "alias", "previousId": self.random.choice([device, "u2", "old-1"]), "userId": self._user(person)}
        else:
            message |= {"type": "group", "groupId": self.random.choice(["g1", "g2"]), "traits": {"name": "Firm", "plan": "pro"}}

    def _user(self, person: int) -> Any:
        user = USERS[person] if self._is(0.93) else self.random.choice(USERS)
        return f" {user}\u00a0" if isinstance(user, str) and not isinstance(user, Number) and self._is(0.05) else user

    def _email(self, person: int) -> str:
        if self._is(0.15):
            return self.random.choice([*OFFICE, "no email", "a@b", "@x.y", ""])
        email = EMAILS[person % len(EMAILS)]
        return self.random.choice([email, email, email.upper(), f" {email}\u3000"])

    def _traits(self, person: int) -> dict[str, Any]:
        given: dict[str, Any] = {}
        if self._is(0.6):
            given["email"] = self._email(person)
        if self._is(0.4):
            given["phone"] = self.random.choice(PHONES) if self._is(0.2) else PHONES[person % 6]
        if self._is(0.5):
            given["plan"] = self.random.choice(["free", "pro", True, None, Number("1")])
        if self._is(0.3):
            given |= {"name": self.random.choice(NOTES), "address": {"city": self.random.choice(["Wien", "İzmir", None])}}
        if self._is(0.2):
            given["age"] = self.random.choice(
                [Number("30"), "30", Number("1e1"), self._odd("x", [" 7 ", "inf", "nan", "1_0", "+5"])]
            )
        return given

    def _product(self) -> dict[str, Any]:
        given: dict[str, Any] = {"sku": self.random.choice(["s1", "s2", Number("7")])}
        given["category"] = self.random.choice(["books", "toys", "Büro", None])
        given["price"] = self._odd(
            self.random.choice(AMOUNTS), [" 7 ", "inf", "nan", "1_0", "+5", ".5", Number("1E400"), [Number("1")]]
        )
        if self._is(0.4):
            given |= {
                "quantity": self.random.choice([Number("1"), Number("2"), "3"]),
                "is_gift": self.random.choice([True, False]),
            }
        if self._is(0.3):
            given |= {"coupon": self.random.choice(["", "WELCOME", "welcome"]), "note": self.random.choice(NOTES)}
        if self._is(0.05):
            given |= {"email": self.random.choice(EMAILS), "account": self.random.choice(["g1", "g3"])}
        return given

    def _order(self, person: int) -> dict[str, Any]:
        order_id = self.random.choice(self.ordered)[1] if self.ordered and self._is(0.25) else f"o{len(self.ordered)}"
        self.ordered.append((person, order_id))
        given: dict[str, Any] = {**self._product(), "order_id": order_id, "total": self.random.choice(AMOUNTS)}
        given["total"] = self._odd(given["total"], [" 7 ", "1e99", Number("1e-99"), "9223372036854775808", "9199999999999", "١"])
        given["currency"] = self._odd(self.random.choice(CURRENCIES), ["eur", "jpy", "XYZ", "EURO"])
        if self._is(0.08):
            del given["order_id"]
        elif self._is(0.1):
            given["order_id"] = self._odd(Number("7"), ["", " o1 "])
        return given

    def _add_context(self, message: dict[str, Any], person: int) -> None:
        context: dict[str, Any] = {}
        if message["type"] == "page" or self._is(0.1):
            context["page"] = {"url": "https://shop.example/", "referrer": self.random.choice(REFERRERS)}
        if self._is(0.2):
            context["campaign"] = self.random.choice(CAMPAIGNS)
            query = "&".join(f"utm_{'campaign' if k == 'name' else k}={v}" for k, v in context["campaign"].items())
            context["page"] = {"url": f"https://shop.example/?{query}", "referrer": self.random.choice(REFERRERS)}
        if self._is(0.12):
            answers = {each: self._is(0.6) for each in ("marketing", "analytics", "ads") if self._is(0.8)}
            context["consent"] = {"categoryPreferences": answers}
        if self._is(0.1):
            context["traits"] = self._traits(person)
        if self._is(0.1):
            context |= {"device": {"id": self.random.choice(["S1", "s1", "s2", "s3"])}, "ip": "203.0.113.7"}
        if context or self._is(0.5):
            message["context"] = context
        if self.count % 7 == 0:  # no draw: what else is made up stays the same
            given = CONSENT_STRINGS[self.count // 7 % len(CONSENT_STRINGS)]
            message.setdefault("context", {}).setdefault("consent", {}).update(given)
        if self.count % 8 == 0:  # no draw: what else is made up stays the same
            message.setdefault("context", {})["consentManagement"] = CONSENT_LISTS[self.count // 8 % len(CONSENT_LISTS)]
        if self.count % 6 == 0:  # no draw: what else is made up stays the same
            versions: list[Any] = [Number("2"), "2", Number("9"), Number("1"), None]
            message.setdefault("context", {})["protocols"] = {"event_version": versions[self.count // 6 % 5]}

    def _add_link(self, message: dict[str, Any], device: str) -> None:
        """The page is reached by a link that names another device: just now, a while ago, or nobody knows when."""
        number = self.count // 5
        age = [0, SECOND, 90 * SECOND, 119 * SECOND, 7 * 60 * SECOND, DAY][number % 6]
        followed = (self.now + self.skews[device] - age) // 1000
        other = f"d{number % 10}" if number % 7 else "null"
        page = message.setdefault("context", {}).setdefault("page", {"referrer": ""})
        page["url"] = f"https://shop.example/?_sp={other}.{followed}" if number % 8 else f"https://shop.example/?ajs_aid={other}"

    def _add_time(self, message: dict[str, Any], device: str) -> int | None:
        happened = self.now - self.random.choice([0, 0, SECOND, SECOND, 1234, 60 * SECOND])
        if self._is(0.12):
            happened -= self.random.choice([HOUR, 5 * HOUR, DAY, 3 * DAY, 33 * DAY])
        if self._is(0.06):
            happened += self.random.choice([SECOND, HOUR, 2 * DAY])
        if self._is(0.15):
            happened = happened // HOUR * HOUR
        skew = self.skews[device]
        if self._is(0.12):
            if self._is(0.4):
                message["timestamp"] = self.random.choice(UNREADABLE)
            elif self._is(0.5):
                message["originalTimestamp"] = self._instant(happened)
        else:
            message["timestamp"] = self._instant(happened + skew)
        return self.now + skew if self._is(0.5) else None

    def _instant(self, micros: int) -> Any:
        zone = self.random.choice([0, 0, 0, 2, -5])
        moment = (_EPOCH + timedelta(microseconds=micros, hours=zone)).replace(tzinfo=None)
        text = moment.isoformat(timespec=self.random.choice(["milliseconds", "microseconds", "seconds"]))
        offset = f"{zone:+03d}:00" if zone else self.random.choice(["Z", "Z", "Z", "+00:00", ""])
        date = text[:10]
        odd = [
            date,
            text.replace("T", " "),
            f"{text[:19]}.123456789Z",
            f"{date}T24:00:00Z",
            f"{date}T23:59:60Z",
            Number("1769810000"),
            f"{text} Z",
        ]
        return self._odd(text + offset, odd)
