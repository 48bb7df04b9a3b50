"""Tables of kernels beside their roofline and of the rungs of precision beside float64."""

from collections.abc import Sequence

from reports.load import Row
from reports.tables import Cell, Table

KERNEL, LADDER, DEVICE = "kernel", "precision-ladder", "gpu"
PRODUCTS, REFERENCE = "over its products", "reference over it"


def roofline(records: Sequence[Row]) -> Table:
    """Two acts on one layer, seconds of both and how much longer the first takes; as measured last."""
    rows = [
        (
            *_texts(_shape(row), row.get("library", row["device"]), row["what"], row["against"]),
            *(Cell(seconds, "seconds", _source(row)) for seconds in row["seconds"]),
            *(Cell(row[ratio], "real", _source(row)) for ratio in ("ratio", "ratio_min")),
        )
        for row in _newest(records, KERNEL, ("shape", "library", "what", "against", "device"))
    ]
    header = ("layer", "in", "this", "against", "seconds", "its seconds", "ratio", "of minima")
    notes = "Medians of interleaved rounds. A step's roofline is its own products with the Gram, a mask's is a copy."
    return Table("Kernels against their roofline", header, rows, (notes,) if rows else ())


def twins(records: Sequence[Row]) -> Table:
    """A row per fast twin and library: on every layer its time over its products', and the reference's over its."""
    rows = _newest(records, KERNEL, ("shape", "library", "what", "against", "device"))
    pairs = {(row["what"].split()[0], row["library"], _shape(row), _side(row)): row for row in rows if _side(row)}
    names, shapes = list(dict.fromkeys(key[:2] for key in pairs)), list(dict.fromkeys(key[2] for key in pairs))
    columns = [(shape, side) for shape in shapes for side in (PRODUCTS, REFERENCE)]
    body = [(*_texts(*name), *(_ratio(pairs.get((*name, *column))) for column in columns)) for name in names]
    header = ("twin", "in", *(f"{shape}: {side}" for shape, side in columns))
    return Table("Fast twins", header, body)


def ladder(records: Sequence[Row]) -> Table:
    """A row per layer, rung and last stage: certificates of the final weights, and what differs from fp64."""
    rows = [
        (
            *_texts(f"{row['layer']}, {_shape(row)}", row["rung"], row["finish"]),
            Cell(row["bits"], "count", _source(row)),
            Cell(row["certificates"].get("holds", 0), "count", _source(row)),
            Cell(fails := row["certificates"].get("fails", 0), "count", _source(row), mark="fails" if fails else ""),
            Cell(row["support_share"], "share", _source(row)),
            Cell(row["relative_gap"], "real", _source(row)),
            Cell(row["seconds_step"], "seconds", _source(row)),
        )
        for row in _newest(records, LADDER, ("layer", "shape", "rung", "finish", "device"))
    ]
    header = ("layer", "rung", "last stage", "bits", "hold", "fail", "support", "gap", "a step")
    notes = "Support: entries kept on one side only. Gap: (f - f of fp64) / f of fp64. Both are recorded, not judged."
    return Table("Rungs of precision against fp64", header, rows, (notes,) if rows else ())


def device(records: Sequence[Row]) -> Table:
    """Measurements on a device: seconds, the rate of what sets the roofline, and every other's share of it."""
    rows = [
        (
            *_texts(row["device"]["name"], row.get("layer", row["what"]), _shape(row)),
            Cell(row["seconds"]["min"], "seconds", _source(row)),
            Cell(row.get("rate"), "real", _source(row)),
            Cell(row.get("share"), "share", _source(row)),
            Cell(row.get("of")),
        )
        for row in _newest(records, DEVICE, ("device", "what", "layer", "shape", "scale"))
    ]
    return Table(
        "A device against its roofline", ("device", "what", "shape", "seconds", "a second", "share", "of"), rows
    )


TABLES = {KERNEL: roofline, LADDER: ladder, DEVICE: device}


def _newest(records: Sequence[Row], benchmark: str, names: tuple[str, ...]) -> list[Row]:
    """One record for each set of facts of these names, the newest."""
    chosen = sorted((row for row in records if row["benchmark"] == benchmark), key=lambda row: row["when"])
    return list({str([row.get(name) for name in names]): row for row in chosen}.values())


def _side(row: Row) -> str:
    """What a pair tells of a twin; nothing where there are no products, as of selections and swaps."""
    if row["against"].endswith("products with the Gram"):
        return PRODUCTS
    return REFERENCE if "reference, float64" in row["what"] else ""


def _ratio(row: Row | None) -> Cell:
    return Cell(row["ratio"], "real", _source(row)) if row else Cell(None)


def _shape(row: Row) -> str:
    return " x ".join(map(str, row.get("shape", ())))


def _texts(*values: object) -> tuple[Cell, ...]:
    return tuple(map(Cell, values))


def _source(row: Row) -> str:
    return f"record {row['id']}"
