"""What the shop sells, who visits it and from where: invented names, reserved addresses and numbers, real user agents.

E-mail domains are reserved for documentation (RFC 2606), telephone numbers for drama (Ofcom).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

SITE = "https://www.cornerrecords.example"
CURRENCY = "EUR"
KIOSK_AGENT = "Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36"

GENRES = ("Jazz", "Soul", "Electronic", "Indie Rock", "Classical", "Hip-Hop", "Folk", "Reggae")
_FIRST_WORDS = ("Velvet", "Copper", "Midnight", "Paper", "Northern", "Hollow", "Golden", "Distant", "Quiet", "Crimson")
_SECOND_WORDS = ("Harbour", "Telegraph", "Orchard", "Lanterns", "Parade", "Static", "Foxes", "Meridian")
_TITLES = ("Live at the Corner", "First Light", "B-Sides", "Slow Machines", "Letters Home", "Low Tide", "Second Floor", "Reprise")
_CENTS = (799, 999, 1299, 1499, 1799, 1999, 2199, 2499, 2999, 3499, 4999)


@dataclass(frozen=True)
class Product:
    """A record. `price` is in cents."""

    product_id: str
    name: str
    genre: str
    price: int

    @property
    def path(self) -> str:
        return f"/records/{self.product_id.lower()}"


PRODUCTS: tuple[Product, ...] = tuple(
    Product(
        f"REC-{number:03d}",
        f"{first} {second}: {_TITLES[number % len(_TITLES)]}",
        GENRES[(number * 5 + number // 8) % len(GENRES)],
        _CENTS[(number * 7) % len(_CENTS)],
    )
    for number, (first, second) in enumerate(itertools.product(_FIRST_WORDS, _SECOND_WORDS), start=1)
)

BY_GENRE: dict[str, tuple[Product, ...]] = {
    genre: tuple(product for product in PRODUCTS if product.genre == genre) for genre in GENRES
}

# fmt: off
FIRST_NAMES = (
    "Aoife", "Ben", "Carla", "Dara", "Elena", "Finn", "Grace", "Hugo", "Ines", "Jonas", "Keira", "Liam", "Maeve", "Niamh",
    "Oscar", "Priya", "Quinn", "Rosa", "Sean", "Tara", "Una", "Viktor", "Wren", "Yusuf", "Zoe", "Adam", "Bella", "Conor",
    "Daniel", "Eve", "Farah", "Gavin", "Hana", "Ivan", "Julia", "Kofi", "Lena", "Marco", "Nora", "Owen",
)
LAST_NAMES = (
    "Adeyemi", "Byrne", "Carroll", "Doyle", "Evans", "Fischer", "Gallagher", "Hughes", "Ivanova", "Jensen", "Kelly",
    "Lopez", "Murphy", "Nolan", "OBrien", "Patel", "Quigley", "Ryan", "Silva", "Tanaka", "Ueda", "Vogel", "Walsh", "Young",
    "Zhang", "Brennan", "Costa", "Duffy", "Farrell", "Healy",
)
# fmt: on
MAIL_DOMAINS = ("example.com", "example.org", "example.net", "mail.example", "post.example")

DESKTOP_AGENTS = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.1 Safari/605.1.15",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:133.0) Gecko/20100101 Firefox/133.0",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36 Edg/131.0.0.0",
    "Mozilla/5.0 (X11; Linux x86_64; rv:133.0) Gecko/20100101 Firefox/133.0",
)
MOBILE_AGENTS = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.1.1 "
    "Mobile/15E148 Safari/604.1",
    "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Mobile Safari/537.36",
    "Mozilla/5.0 (Linux; Android 14; SM-S921B) AppleWebKit/537.36 (KHTML, like Gecko) SamsungBrowser/27.0 Chrome/125.0.0.0 "
    "Mobile Safari/537.36",
    "Mozilla/5.0 (iPad; CPU OS 17_7 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.7 Mobile/15E148 "
    "Safari/604.1",
)
BOT_AGENTS = (
    "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
    "Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)",
    "Mozilla/5.0 (compatible; AhrefsBot/7.0; +http://ahrefs.com/robot/)",
)


@dataclass(frozen=True)
class Origin:
    """Where a visit comes from. `channel` is what a marketer would call it."""

    channel: str
    referrer: str = ""
    source: str | None = None
    medium: str | None = None
    campaign: str | None = None
    click_id: str | None = None
    """Name of the click id that is put into the landing page's address."""


DIRECT = Origin("Direct")
NEWSLETTERS = tuple(Origin("Email", "", "newsletter", "email", f"weekly_{week:02d}") for week in range(1, 10))
ORIGINS: tuple[tuple[Origin, int], ...] = (
    (DIRECT, 26),
    (Origin("Organic Search", "https://www.google.com/"), 18),
    (Origin("Organic Search", "https://duckduckgo.com/"), 4),
    (Origin("Organic Search", "https://www.bing.com/"), 4),
    (Origin("Paid Search", "https://www.google.com/", "google", "cpc", "brand_records", "gclid"), 10),
    (Origin("Paid Search", "https://www.google.com/", "google", "cpc", "vinyl_generic", "gclid"), 7),
    (Origin("Paid Social", "https://www.facebook.com/", "facebook", "paid_social", "spring_vinyl", "fbclid"), 9),
    (Origin("Paid Social", "https://www.instagram.com/", "instagram", "paid_social", "new_arrivals", "fbclid"), 4),
    (Origin("Organic Social", "https://www.reddit.com/"), 4),
    (Origin("Organic Social", "https://www.instagram.com/"), 4),
    (Origin("Affiliates", "https://www.needledrop.example/best-of", "needledrop", "affiliate", "best_of_vinyl"), 5),
    (Origin("Affiliates", "https://deals.example/records", "dealsite", "affiliate", "coupons"), 2),
    (Origin("Referral", "https://blog.groovepress.example/reviews"), 3),
)

_AREAS = ("0113496", "0114496", "0116496", "0117496", "0118496", "0121496", "0131496", "0141496", "0151496", "0161496")
_FICTIONAL = (*_AREAS, "0191498", "0207946")


def telephone_numbers() -> Iterator[str]:
    """National numbers (United Kingdom) that Ofcom keeps for drama, each once."""
    for line, area in itertools.product(range(1000), _FICTIONAL):
        yield f"{area}0{line:03d}"
