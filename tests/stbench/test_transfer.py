"""One file over a bad line: it comes whole, or one line says why not, and what has come is kept."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import faulty_server as faulty
import httpx
import numpy as np
import pytest
from faulty_server import Server, serving

from stbench.errors import PlaceError, UserError
from stbench.fetching import room
from stbench.fetching.answers import require_file
from stbench.fetching.transfer import Download, Limits, open_client

CONTENT = np.random.default_rng(0).integers(0, 256, 200_000, dtype=np.uint8).tobytes()
QUICK = Limits(connect_s=1, stall_s=0.3, tries=3, progress=1000, wait_s=0.01, longest_wait_s=1)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as state:
        state.files["file"] = CONTENT
        yield state


class Fetcher:
    def __init__(self, server: Server, part: Path) -> None:
        self.server, self.part, self.said = server, part, list[str]()
        self.seen: list[tuple[int, int | None]] = []

    def __call__(self, path: str = "file", limits: Limits = QUICK, **known: object) -> bytes:
        with open_client(limits) as client:
            Download(
                client, self.server.url + path, self.part, limits, "https://example.org/data",
                say=self.said.append, at=lambda *at: self.seen.append(at), **known,  # type: ignore[arg-type]
            ).run()  # fmt: skip
        return self.part.read_bytes()


@pytest.fixture
def fetch(server: Server, tmp_path: Path) -> Fetcher:
    return Fetcher(server, tmp_path / "file.part")


def test_a_good_server_is_asked_once(fetch: Fetcher) -> None:
    assert fetch() == CONTENT
    assert len(fetch.server.requests) == 1
    assert fetch.server.asked("file")[0]["accept-encoding"] == "identity"
    assert fetch.seen[-1] == (len(CONTENT), len(CONTENT))
    assert not fetch.said


def test_what_drops_is_resumed_where_it_broke_off(fetch: Fetcher) -> None:
    fetch.server.faults["file"] = [faulty.drop(70_000), faulty.drop(150_000)]
    assert fetch() == CONTENT
    asked = fetch.server.asked("file")
    assert [headers.get("range") for headers in asked] == [None, "bytes=70000-", "bytes=150000-"]
    assert asked[1]["if-range"].startswith('"')


def test_another_process_goes_on_with_the_part(fetch: Fetcher) -> None:
    fetch.server.faults["file"] = [faulty.drop(70_000), faulty.refuse(403)]
    with pytest.raises(UserError, match=r"is refused \(403 Forbidden\).*example\.org/data.*--from"):
        fetch()
    assert fetch.part.read_bytes() == CONTENT[:70_000]
    assert fetch() == CONTENT
    assert fetch.server.asked("file")[-1]["range"] == "bytes=70000-"


def test_ctrl_c_leaves_a_part_that_is_gone_on_with(fetch: Fetcher) -> None:
    def interrupt(done: int, total: int | None) -> None:
        if done > 50_000:
            raise KeyboardInterrupt

    with open_client(QUICK) as client, pytest.raises(KeyboardInterrupt):
        Download(client, f"{fetch.server.url}file", fetch.part, QUICK, "", at=interrupt).run()
    here = fetch.part.stat().st_size
    assert 50_000 < here < len(CONTENT)
    assert fetch() == CONTENT
    assert fetch.server.asked("file")[-1]["range"] == f"bytes={here}-"


def test_a_server_that_does_not_resume_sends_it_again_and_nothing_is_appended(fetch: Fetcher) -> None:
    fetch.server.ranges = False
    fetch.server.faults["file"] = [faulty.drop(70_000)]
    assert fetch() == CONTENT
    assert any("from the beginning" in text for text in fetch.said)


def test_two_versions_are_never_put_together(fetch: Fetcher) -> None:
    other = CONTENT[::-1]

    def change(handler: faulty.Handler, content: bytes) -> None:
        handler.serve(content, stop_at=70_000)
        handler.state.files["file"] = other

    fetch.server.faults["file"] = [change]
    assert fetch() == other


def test_a_changed_file_of_a_server_that_ignores_if_range_starts_anew(fetch: Fetcher) -> None:
    other = CONTENT[::-1]

    def change(handler: faulty.Handler, content: bytes) -> None:
        handler.serve(content, stop_at=70_000)
        handler.state.files["file"] = other

    def rest_of_the_new_one(handler: faulty.Handler, content: bytes) -> None:
        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes 70000-{len(content) - 1}/{len(content)}")
        handler.send_header("ETag", handler.tag(content))
        handler.send_header("Content-Length", str(len(content) - 70_000))
        handler.end_headers()
        handler.wfile.write(content[70_000:])

    fetch.server.faults["file"] = [change, rest_of_the_new_one]
    assert fetch() == other


def test_without_a_validator_a_part_is_not_trusted_unless_a_checksum_will_tell(fetch: Fetcher) -> None:
    fetch.server.tags = False
    fetch.server.faults["file"] = [faulty.drop(70_000)]
    assert fetch() == CONTENT
    assert "range" not in fetch.server.asked("file")[1]
    fetch.part.unlink()
    fetch.server.faults["file"] = [faulty.drop(70_000)]
    assert fetch(has_checksum=True) == CONTENT
    assert fetch.server.asked("file")[-1]["range"] == "bytes=70000-"


def test_a_part_of_another_address_or_with_a_damaged_note_is_not_gone_on_with(fetch: Fetcher) -> None:
    note = fetch.part.with_name("file.part.json")
    strange = json.dumps({"url": f"{fetch.server.url}file", "validator": 5, "total": 9})
    for text in (json.dumps({"url": "http://elsewhere/", "validator": '"a"', "total": 9}), strange, "{", "[]"):
        fetch.part.write_bytes(b"x" * 100)
        note.write_text(text)
        assert fetch() == CONTENT
        assert "range" not in fetch.server.asked("file")[-1]


def test_a_wrong_part_is_thrown_away(fetch: Fetcher) -> None:
    fetch.server.faults["file"] = [faulty.drop(70_000), faulty.wrong_part]
    assert fetch() == CONTENT
    assert any("another part" in text for text in fetch.said)


def test_a_part_that_is_complete_or_too_long(fetch: Fetcher) -> None:
    fetch.server.faults["file"] = [faulty.drop(70_000), faulty.refuse(404)]
    with pytest.raises(UserError, match=r"is not there \(404 Not Found\)"):
        fetch()
    fetch.part.write_bytes(CONTENT)
    assert fetch() == CONTENT  # 416 with the same length
    fetch.part.write_bytes(CONTENT + b"more")
    assert fetch() == CONTENT  # 416 with another length


def test_busy_servers_are_asked_again_and_told_how_long(fetch: Fetcher) -> None:
    fetch.server.faults["file"] = [faulty.refuse(503, retry_after="0"), faulty.refuse(429)]
    assert fetch() == CONTENT
    assert [text.partition(";")[0] for text in fetch.said] == [
        "the server answers 503 Service Unavailable",
        "the server answers 429 Too Many Requests",
    ]


def test_a_server_that_asks_to_come_back_later_is_not_pestered(fetch: Fetcher) -> None:
    fetch.server.faults["file"] = [faulty.refuse(429, retry_after="3600")]
    with pytest.raises(UserError, match="429 Too Many Requests, and asks to wait for 60 minutes"):
        fetch()
    fetch.server.faults["file"] = [faulty.refuse(503, retry_after="Fri, 31 Dec 2100 23:59:59 GMT")]
    with pytest.raises(UserError, match="asks to wait"):
        fetch()
    assert len(fetch.server.requests) == 2
    fetch.server.faults["file"] = [faulty.refuse(503, retry_after="soon"), faulty.refuse(503, retry_after="\xb2")]
    assert fetch() == CONTENT


def test_tries_are_limited_and_what_came_is_kept(fetch: Fetcher) -> None:
    fetch.server.faults["file"] = [faulty.drop(70_000), *[faulty.refuse(500)] * 9]
    with pytest.raises(UserError, match="500 Internal Server Error, 3 times - 70,000 bytes are kept"):
        fetch()
    assert len(fetch.server.requests) == 3


def test_a_server_that_always_drops_at_the_same_place_is_given_up(fetch: Fetcher) -> None:
    fetch.server.ranges = False
    fetch.server.faults["file"] = [faulty.drop(70_000)] * 20
    with pytest.raises(UserError, match="3 times"):
        fetch()


def test_redirects_are_followed_but_not_in_a_circle(fetch: Fetcher) -> None:
    fetch.server.faults["old"] = [faulty.redirect("/file")]
    assert fetch("old") == CONTENT
    fetch.server.faults["a"] = [faulty.redirect("/b")] * 20
    fetch.server.faults["b"] = [faulty.redirect("/a")] * 20
    with pytest.raises(UserError, match="again and again, in a circle"):
        fetch("a")
    fetch.server.faults["c"] = [faulty.redirect("gopher://example.org/")]
    with pytest.raises(UserError, match="is no address"):
        fetch("c")


def test_what_is_asked_for_securely_is_not_taken_from_an_insecure_address() -> None:
    def answer(address: str, **more: object) -> httpx.Response:
        return httpx.Response(200, request=httpx.Request("GET", address), **more)  # type: ignore[arg-type]

    secure, insecure = answer("https://example.org/file"), answer("http://example.org/file")
    require_file(secure, "https://example.org/file", "")
    require_file(insecure, "http://example.org/file", "")
    for redirected in (insecure, answer("https://example.org/file", history=[insecure])):
        with pytest.raises(UserError, match="leads to an address that is not secure"):
            require_file(redirected, "https://example.org/file", "")


def test_stalls_and_trickles_end(fetch: Fetcher) -> None:
    fetch.server.faults["file"] = [faulty.stall, faulty.trickle]
    assert fetch() == CONTENT
    assert fetch.said[0].startswith("nothing came for too long")
    assert any("bytes came in" in text for text in fetch.said[1:])


def test_a_wrong_length_is_noticed(fetch: Fetcher) -> None:
    fetch.server.faults["file"] = [faulty.claim(300_000)]  # more than comes: it breaks off
    assert fetch() == CONTENT
    fetch.part.unlink()
    fetch.server.faults["file"] = [faulty.claim(100_000)]
    with pytest.raises(UserError, match="has 100,000 bytes where 200,000 are published"):
        fetch(bytes=len(CONTENT))
    fetch.server.faults["file"] = [faulty.without_length]
    assert fetch(bytes=len(CONTENT)) == CONTENT
    fetch.part.unlink()
    fetch.server.faults["file"] = [faulty.without_length]
    with pytest.raises(UserError, match="sends more bytes than it has"):
        fetch(bytes=len(CONTENT) - 1)


def test_a_file_cut_at_the_server_is_not_taken_for_the_whole(fetch: Fetcher) -> None:
    def cut(handler: faulty.Handler, content: bytes) -> None:
        faulty.without_length(handler, content[:70_000])

    fetch.server.faults["file"] = [cut]
    assert fetch(bytes=len(CONTENT)) == CONTENT


def test_a_page_is_not_taken_for_the_file(fetch: Fetcher) -> None:
    fetch.server.faults["file"] = [faulty.web_page]
    with pytest.raises(UserError, match="a web page, not by the file"):
        fetch()
    assert not fetch.part.exists()


def test_what_is_compressed_on_the_way_is_refused_unless_it_lies_so_on_the_disk(fetch: Fetcher) -> None:
    def compressed(handler: faulty.Handler, content: bytes) -> None:
        handler.send_response(200)
        handler.send_header("Content-Encoding", "x-gzip")
        handler.send_header("Content-Length", str(len(CONTENT)))
        handler.end_headers()
        handler.wfile.write(CONTENT)

    fetch.server.faults["file"] = [compressed]
    with pytest.raises(UserError, match="compressed"):
        fetch()
    fetch.server.faults["table.tsv.gz"] = [compressed]
    assert fetch("table.tsv.gz") == CONTENT


def test_no_server_no_room_no_folder(fetch: Fetcher, monkeypatch: pytest.MonkeyPatch) -> None:
    good, fetch.server.url = fetch.server.url, "http://127.0.0.1:1/"
    with pytest.raises(UserError, match=r"there is no connection .* and give the folder with --from"):
        fetch()
    fetch.server.url = good
    monkeypatch.setattr(room, "SPARE", 1 << 60)
    with pytest.raises(PlaceError, match=r"free and 200\.0 kB are needed - make room"):
        fetch()


def test_an_endless_answer_is_cut(fetch: Fetcher) -> None:
    fetch.server.faults["file"] = [faulty.without_length]
    with pytest.raises(UserError, match="sends more bytes"):
        fetch(most=1000)
    with pytest.raises(UserError, match="too many for what it is"):
        fetch(most=1000)
