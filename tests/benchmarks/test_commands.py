"""The README's commands are run as they stand, each in the folder of the one before it."""

from __future__ import annotations

from benchmarks import commands


def test_a_command_is_recorded_with_what_it_printed_and_how_it_ended(monkeypatch) -> None:
    write = "python -c \"open('kept.txt', 'w').write('7')\""
    read = "python -c \"print(open('kept.txt').read()); raise SystemExit(3)\""
    monkeypatch.setattr(commands, "COMMANDS", (write, read))
    told: list[str] = []
    first, second = commands.run_commands(lambda done, of, what: told.append(what))
    assert (first["line"], first["exit"], first["output"]) == (write, 0, "")
    assert (second["number"], second["exit"], second["output"]) == (1, 3, "7")
    assert told == [write, read]


def test_every_command_of_the_readme_is_one_of_this_project() -> None:
    assert len(commands.COMMANDS) == 11
    modules = ("llm_pipeline", "theory_checks", "benchmarks", "reports")
    assert all(line.split()[:3] in [["python", "-m", module] for module in modules] for line in commands.COMMANDS)
