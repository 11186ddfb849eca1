"""URLs of PostgreSQL databases: elsewhere with TLS only, without a password, which comes from where libpq looks for it."""

from pathlib import Path

import pytest

from cloud.cli import main
from cloud.database_url import PostgresUrl, find_password
from cloud.errors import ClinicError

URL = PostgresUrl("pulse", "127.0.0.1", 5433, "blocks")
REMOTE = PostgresUrl("pulse", "db.example", 5433, "blocks", Path("/an id&"), "DE")


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("postgresql://pulse@127.0.0.1:5433/blocks", URL),
        ("postgres://pulse@127.0.0.2/blocks", PostgresUrl("pulse", "127.0.0.2", 5432, "blocks")),
        ("postgresql://pulse@[::1]/blocks", PostgresUrl("pulse", "::1", 5432, "blocks")),
        ("postgresql://pulse@/blocks?host=/run/postgresql&port=5433", PostgresUrl("pulse", "/run/postgresql", 5433, "blocks")),
        (
            "postgresql://pulse@db.example/blocks?identity=/id&region=DE",
            PostgresUrl("pulse", "db.example", 5432, "blocks", Path("/id"), "DE"),
        ),
        ("postgresql://a%40b@127.0.0.1/c%20d", PostgresUrl("a@b", "127.0.0.1", 5432, "c d")),
    ],
)
def test_reads_urls_as_libpq_writes_them(text: str, url: PostgresUrl) -> None:
    assert PostgresUrl.parse(text) == url


def test_the_text_of_a_url_is_a_url() -> None:
    for url in (URL, PostgresUrl("pulse", "/run/postgresql", 5433, "blocks"), PostgresUrl("pulse", "::1", 1, "b"), REMOTE):
        assert PostgresUrl.parse(str(url)) == url


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("postgresql://pulse:CANARY-4711@127.0.0.1/blocks", "must hold no password: set PGPASSFILE"),
        ("postgresql://pulse@127.0.0.1/blocks?password=CANARY-4711", "must hold no password"),
        ("postgresql://pulse@192.0.2.1/blocks", "host = '192.0.2.1' is not allowed: set it to a loopback address"),
        ("postgresql://pulse@clinic.example/blocks", "host = 'clinic.example' is not allowed: set it to a loopback"),
        ("postgresql://pulse@localhost/blocks", "host = 'localhost' is not allowed: set it to a loopback"),
        ("postgresql://pulse@/blocks?host=::1%25a%0ab", r"host = '::1%a\\nb' is not allowed"),
        ("postgresql://pulse@/blocks", "host = '' is not allowed: .* or give the folder of a socket"),
        ("postgresql://pulse@192.0.2.1/blocks?identity=/id", "region = None is not allowed: set it to the code of a country"),
        ("postgresql://pulse@192.0.2.1/blocks?identity=/id&region=US", "region = 'US' is not allowed"),
        ("postgresql://pulse@127.0.0.1/blocks?region=DE", "region is set without identity"),
        ("postgresql://pulse@/blocks?host=/run&identity=/id", "not for the socket of a database: omit them"),
        ("postgresql://127.0.0.1/blocks", "not the URL of a database"),
        ("postgresql://pulse@127.0.0.1", "not the URL of a database"),
        ("mysql://pulse@127.0.0.1/blocks", "not the URL of a database"),
        ("postgresql://pulse@127.0.0.1:x/blocks", "not the URL of a database"),
        ("postgresql://pulse@127.0.0.1:0/blocks", "'0' is not a port"),
        ("postgresql://pulse@/blocks?host=/run&port=70000", "'70000' is not a port"),
        pytest.param("postgresql://pulse@/b?host=/run&port=" + "9" * 5000, "'9{5000}' is not a port", id="long"),
        ("postgresql://pulse@127.0.0.1/blocks?sslmode=disable", "unknown option 'sslmode'"),
        ("blocks.db", "not the URL of a database"),
    ],
)
def test_rejects_other_urls_without_quoting_a_password(
    text: str, message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(ClinicError, match=message) as raised:
        PostgresUrl.parse(text)
    assert "CANARY" not in str(raised.value)
    assert main(["open", "--data", str(tmp_path), "--store", text]) == 2
    assert "CANARY" not in capsys.readouterr().err


def write_password_file(folder: Path, *lines: str, mode: int = 0o600) -> dict[str, str]:
    path = folder / "pgpass"
    path.write_text("".join(f"{line}\n" for line in lines))
    path.chmod(mode)
    return {"PGPASSFILE": str(path)}


@pytest.mark.parametrize(
    ("lines", "password"),
    [
        (["127.0.0.1:5433:blocks:pulse:secret"], "secret"),
        (["# a comment", "", "*:*:*:*:secret"], "secret"),
        (["127.0.0.1:5433:other:pulse:wrong", "127.0.0.1:*:blocks:pulse:secret", "*:*:*:*:later"], "secret"),
        ([r"127.0.0.1:5433:blocks:pulse:a\:b\\c"], r"a:b\c"),
        (["127.0.0.1:5433:blocks"], None),
        ([], None),
    ],
)
def test_finds_the_password_in_the_file(tmp_path: Path, lines: list[str], password: str | None) -> None:
    assert find_password(URL, write_password_file(tmp_path, *lines)) == password


def test_the_environment_comes_before_the_file_and_a_socket_is_localhost(tmp_path: Path) -> None:
    environment = write_password_file(tmp_path, "localhost:*:*:*:of-the-socket")
    socket = PostgresUrl("pulse", "/run/postgresql", 5432, "blocks")
    assert find_password(socket, environment) == "of-the-socket"
    assert find_password(socket, environment | {"PGPASSWORD": "of-the-environment"}) == "of-the-environment"


def test_refuses_a_password_file_that_others_may_read(tmp_path: Path) -> None:
    with pytest.raises(ClinicError, match=r"other users may read the password file .*: set its mode to 600"):
        find_password(URL, write_password_file(tmp_path, "*:*:*:*:secret", mode=0o640))


def test_a_missing_file_is_no_password(tmp_path: Path) -> None:
    assert find_password(URL, {"PGPASSFILE": str(tmp_path / "nowhere")}) is None
