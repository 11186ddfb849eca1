"""The registered hubs: files, assignments and their times."""

from pathlib import Path

import pytest

from cloud.errors import ClinicError
from cloud.registry import CHECK_INTERVAL_S, CLOCK_TOLERANCE_S, Assignment, RegisteredHub, Registry, load_hub, save_hub
from sync.signing import SigningKey, Use

T0_S = 1_790_000_000
DEVICE = SigningKey.generate(Use.DEVICE).public


class Clock:
    """A monotonic clock that only the test moves."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def epoch(time_s: int) -> int:
    return time_s << 20 | 12345


def save(folder: Path, *assignments: Assignment, hub: str = "hub-1") -> None:
    save_hub(folder, RegisteredHub(hub, DEVICE, assignments))


def test_a_saved_hub_is_read_back(tmp_path: Path) -> None:
    hub = RegisteredHub("hub-1", DEVICE, (Assignment("patient-1", T0_S, T0_S + 60), Assignment("patient-2", T0_S + 60)))
    save_hub(tmp_path, hub)

    read = load_hub(tmp_path / "hub-1.toml")

    assert (read.hub, read.device.to_bytes(), read.assignments) == ("hub-1", DEVICE.to_bytes(), hub.assignments)


def test_a_hub_may_seal_for_its_subject_during_the_assignment_only(tmp_path: Path) -> None:
    save(tmp_path, Assignment("patient-1", T0_S, T0_S + 60), Assignment("patient-2", T0_S + 60))
    registry = Registry(tmp_path, Clock())

    end = T0_S + 60 + CLOCK_TOLERANCE_S
    times = {"patient-1": (T0_S - 1, T0_S, end, end + 1), "patient-2": (T0_S + 59, T0_S + 60, end, 2**33 - 1)}
    allowed = {subject: [registry.may_seal("hub-1", subject, epoch(time)) for time in at] for subject, at in times.items()}

    assert allowed == {"patient-1": [False, True, True, False], "patient-2": [False, True, True, True]}


def test_nobody_else_may_seal(tmp_path: Path) -> None:
    save(tmp_path, Assignment("patient-1", T0_S))
    registry = Registry(tmp_path, Clock())

    assert not registry.may_seal("hub-2", "patient-1", epoch(T0_S))
    assert not registry.may_seal("hub-1", "patient-2", epoch(T0_S))
    assert registry.device_key("hub-2") is None


def test_an_assignment_is_ended_and_never_overwritten() -> None:
    hub = (
        RegisteredHub("hub-1", DEVICE, ())
        .assign("patient-1", T0_S)
        .assign("patient-2", T0_S + 100)
        .assign("patient-1", T0_S + 200)
    )

    assert hub.assignments == (
        Assignment("patient-1", T0_S, T0_S + 100),
        Assignment("patient-2", T0_S + 100, T0_S + 200),
        Assignment("patient-1", T0_S + 200),
    )
    assert hub.assign("patient-1", T0_S + 300) is hub


def test_an_assignment_cannot_begin_before_the_one_that_it_ends() -> None:
    hub = RegisteredHub("hub-1", DEVICE, (Assignment("patient-1", T0_S),))

    with pytest.raises(ClinicError, match="give a time --from after that of patient-1"):
        hub.assign("patient-2", T0_S - 1)


def test_changed_and_new_files_are_noticed(tmp_path: Path) -> None:
    save(tmp_path, Assignment("patient-1", T0_S))
    clock = Clock()
    registry = Registry(tmp_path, clock)
    before = registry.hubs()

    save(tmp_path, Assignment("patient-1", T0_S, T0_S + 60), Assignment("patient-2", T0_S + 60))
    save(tmp_path, hub="hub-2")
    unnoticed = registry.hubs()
    clock.now_s += CHECK_INTERVAL_S

    assert (before, unnoticed, registry.hubs()) == (("hub-1",), ("hub-1",), ("hub-1", "hub-2"))
    assert registry.may_seal("hub-1", "patient-2", epoch(T0_S + 60))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\xff", "correct the file"),
        (b"version = 2", "device_key"),
        (b'version = 2\nhub = "hub-1"\ndevice_key = "04"', "device_key"),
        (f'version = 1\nhub = "hub-1"\ndevice_key = "{DEVICE.to_bytes().hex()}"'.encode(), "version"),
        (f'version = 2\nhub = "hub-2"\ndevice_key = "{DEVICE.to_bytes().hex()}"'.encode(), "name of the file"),
        (f'version = 2\nhub = "hub-1"\ndevice_key = "{DEVICE.to_bytes().hex()}"\nassignment = 3'.encode(), "list of tables"),
        (
            f'version = 2\nhub = "hub-1"\ndevice_key = "{DEVICE.to_bytes().hex()}"\n'
            '[[assignment]]\nsubject = "patient-1"\nfrom = 2026-11-30T08:00:00'.encode(),
            "times with a zone",
        ),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "hub-1.toml").write_bytes(content)

    with pytest.raises(ClinicError, match=says):
        Registry(tmp_path, Clock()).device_key("hub-1")


def test_a_file_that_is_damaged_later_does_not_end_the_clinic(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(tmp_path, Assignment("patient-1", T0_S))
    clock = Clock()
    registry = Registry(tmp_path, clock)
    assert registry.device_key("hub-1") is not None

    (tmp_path / "hub-1.toml").write_text("version = ")
    (tmp_path / "hub-2.toml").write_text("version = ")
    for _ in range(3):
        clock.now_s += CHECK_INTERVAL_S
        assert registry.may_seal("hub-1", "patient-1", epoch(T0_S))
        assert registry.device_key("hub-2") is None
    assert [record.getMessage().count("cannot read the registration") for record in caplog.records] == [1, 1]

    save(tmp_path, Assignment("patient-2", T0_S))
    clock.now_s += CHECK_INTERVAL_S
    assert registry.may_seal("hub-1", "patient-2", epoch(T0_S))
