"""What a component looks like, to a person who asks why these identifiers are one person: types and degrees, never identifiers.

Pure but for reading: networkx examines a few small components; solving the graph is in transform.py.
"""

from __future__ import annotations

import math
from collections import Counter
from urllib.parse import quote

import networkx as nx
import polars as pl

LARGEST_DRAWN = 12
LARGEST_EXAMINED = 2_000
_COLOURS = ("#36c", "#c63", "#393", "#939", "#c33", "#399", "#666")
_SIDE = 90


def graph(edges: pl.DataFrame, types: pl.DataFrame) -> nx.Graph[int]:
    """The links between identifiers. `edges` [centre_id, leaf_id]; `types` [identifier_id, identifier_type]: those to look at."""
    found: nx.Graph[int] = nx.Graph()
    for identifier, kind in types.select("identifier_id", "identifier_type").iter_rows():
        found.add_node(identifier, type=kind)
    pairs = edges.select("centre_id", "leaf_id").unique()
    found.add_edges_from(pair for pair in pairs.iter_rows() if pair[0] in found and pair[1] in found and pair[0] != pair[1])
    return found


def explained(component: nx.Graph[int]) -> str:
    """A component as markdown of less than 1,000 characters: a small picture where it fits, and a row for each type."""
    degrees: dict[int, int] = dict(component.degree())
    kinds: dict[int, str] = nx.get_node_attributes(component, "type")
    holding = set(nx.articulation_points(component)) if component.number_of_nodes() <= LARGEST_EXAMINED else set()
    lines = ["|type|identifiers|most links|holding together|", "|-|-|-|-|"]
    for kind, count in sorted(Counter(kinds.values()).items(), key=lambda item: (-item[1], item[0]))[:8]:
        mine = [node for node in component if kinds[node] == kind]
        lines.append(f"|{kind[:24]}|{count}|{max(degrees[node] for node in mine)}|{len(holding & set(mine))}|")
    table = "\n".join(lines)
    if component.number_of_nodes() <= LARGEST_DRAWN:
        picture = f"![links]({drawn(component)})\n\n"
        if len(picture) + len(table) < 1000:
            return picture + table
    return table


def drawn(component: nx.Graph[int]) -> str:
    """The component as a picture in a data address: a dot for each identifier, coloured by type, best linked in the middle."""
    kinds = {kind: number for number, kind in enumerate(sorted(set(nx.get_node_attributes(component, "type").values())))}
    order = sorted(component, key=lambda node: (-component.degree(node), node))
    place = {}
    for number, node in enumerate(order):
        angle = 2 * math.pi * number / max(len(order) - 1, 1)
        radius = 0 if number == 0 else _SIDE * 0.42
        place[node] = (round(_SIDE / 2 + radius * math.cos(angle)), round(_SIDE / 2 + radius * math.sin(angle)))
    path = "".join(f"M{place[a][0]} {place[a][1]}L{place[b][0]} {place[b][1]}" for a, b in component.edges)
    groups = []
    for kind, number in kinds.items():
        dots = "".join(f"M{x} {y}h0" for node, (x, y) in place.items() if component.nodes[node]["type"] == kind)
        groups.append(f"<path d='{dots}' stroke='{_COLOURS[number % len(_COLOURS)]}' stroke-width='9'/>")
    svg = (
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{_SIDE}' height='{_SIDE}' fill='none' stroke-linecap='round'>"
        f"<path d='{path}' stroke='#999'/>{''.join(groups)}</svg>"
    )
    return "data:image/svg+xml," + quote(svg, safe=" =':/,.").replace(" ", "%20")
