"""Kernels and rungs on the page: every number from its record, the newest of several, failures in red."""

from benchmarks.records import make_record
from reports import kernel_tables
from reports.page import page


def kernel(ratio, **facts):
    seconds = {"seconds": [ratio, 1.0], "seconds_min": [ratio, 1.0], "ratio": ratio, "ratio_min": ratio}
    named = {"what": "maiht twin", "against": "2 products with the Gram", "library": "numpy", "device": "cpu"}
    return make_record("kernel", **{"shape": [1024, 4096], **seconds, **named, **facts})


def rung(name, fails):
    facts = {"layer": "synthetic", "shape": [8, 32], "rung": name, "finish": "fp64", "bits": 8, "device": "cpu"}
    told = {"support_share": 0.25, "relative_gap": -1e-3, "seconds_step": 0.5}
    return make_record("precision-ladder", **facts, **told, certificates={"holds": 9, "fails": fails})


def values(table):
    return [[cell.value for cell in row] for row in table.rows]


def test_a_kernel_is_told_with_its_roofline_as_measured_last():
    old, new = kernel(1.5), kernel(1.1)
    old["when"] = "2000-01-01T00:00:00+00:00"
    table = kernel_tables.roofline([new, old, kernel(1.3, library="torch")])
    assert [row[1:4] + row[6:7] for row in values(table)] == [
        ["numpy", "maiht twin", "2 products with the Gram", 1.1],
        ["torch", "maiht twin", "2 products with the Gram", 1.3],
    ]
    assert table.rows[0][6].source == f"record {new['id']}"


def test_a_twin_is_held_against_its_products_and_its_reference_layer_by_layer():
    slow = {"what": "maiht reference, float64", "against": "maiht twin"}
    wide = kernel(1.2), kernel(4.5, **slow), kernel(1.4, library="torch")
    tall = kernel(1.6, shape=[8, 2])
    mask = kernel(7.0, what="mask KeepPerRow(keep=2)", against="a copy of the scores")
    table = kernel_tables.twins([*wide, tall, mask])
    assert table.header[2:] == tuple(
        f"{shape}: {side}" for shape in ("1024 x 4096", "8 x 2") for side in ("over its products", "reference over it")
    )
    assert values(table) == [["maiht", "numpy", 1.2, 4.5, 1.6, None], ["maiht", "torch", 1.4, None, None, None]]
    assert table.rows[0][3].source == f"record {wide[1]['id']}"


def test_a_rung_that_fails_is_marked():
    table = kernel_tables.ladder([rung("bf16", 0), rung("tf32", 2)])
    assert [row[5].mark for row in table.rows] == ["", "fails"]
    assert values(table)[0][1:8] == ["bf16", "fp64", 8, 9, 0, 0.25, -1e-3]


def test_a_device_is_told_by_share():
    seconds = {"min": 0.5, "median": 0.6, "rounds": 3}
    copy = make_record("gpu", what="copy", device={"name": "H200"}, seconds=seconds, rate=4e12)
    step = make_record(
        "gpu", what="maiht step", shape=[4, 8], device={"name": "H200"}, seconds=seconds, share=0.7, of="copy"
    )
    assert values(kernel_tables.device([copy, step])) == [
        ["H200", "copy", "", 0.5, 4e12, None, None],
        ["H200", "maiht step", "4 x 8", 0.5, None, 0.7, "copy"],
    ]


def test_the_page_shows_them():
    html = page([], [kernel(1.125), rung("bf16", 0), make_record("gpu-run", done=3)])
    for words in ("Kernels against their roofline", "2 products with the Gram", "Rungs of precision", "gpu-run"):
        assert words in html
