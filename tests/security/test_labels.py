"""YAML, XML, JSON and lists from elsewhere: they are refused in seconds, in one line."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import yaml

from dbf_ray.config import load_config
from dbf_ray.data.readers.base import Problem, read_text
from dbf_ray.data.readers.xml_lines import read_xml
from dbf_ray.data.readers.yolo_names import read_names
from dbf_ray.errors import ConfigError
from dbf_ray.single_keys import load_json, load_yaml

SECONDS = 20.0


def laughs(levels: int, kind: str) -> str:
    """YAML whose aliases stand for 9 ** levels values, in a list or in a mapping."""
    first, rest = {"list": ("[x]", "[{}]"), "mapping": ("{a: 1}", "{{{}}}")}[kind]
    lines = [f"a0: &a0 {first}"]
    for level in range(1, levels):
        parts = [f"{'' if kind == 'list' else f'k{place}: '}*a{level - 1}" for place in range(9)]
        lines.append(f"a{level}: &a{level} {rest.format(', '.join(parts))}")
    return "\n".join(lines)


MERGED = "a0: &a0 {k: 1}\n" + "\n".join(
    f"a{level}: &a{level} {{<<: [{', '.join([f'*a{level - 1}'] * 9)}]}}" for level in range(1, 12)
)
HOSTILE_YAML = {
    "python": "!!python/object/apply:os.mkdir [made]",
    "python name": "names: !!python/name:os.mkdir",
    "python module": "names: !!python/module:os",
    "python new": "names: !!python/object/new:os.mkdir [made]",
    "lists": laughs(12, "list"),
    "mappings": laughs(12, "mapping"),
    "merges": MERGED,
    "itself": "names: &a [*a]",
    "itself, a mapping": "&a {names: *a}",
    "nested": "names: " + "[" * 20_000,
    "empty integer": "nc: !!int ''",
    "no timestamp": "nc: !!timestamp x",
    "digits": "nc: " + "9" * 5000,
    "key of a list": "? [a]\n: b",
}


@pytest.mark.parametrize("kind", HOSTILE_YAML)
def test_hostile_yaml_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.chdir(tmp_path)
    text, begun = HOSTILE_YAML[kind], time.monotonic()
    with pytest.raises((yaml.YAMLError, ValueError)):
        load_yaml(text)
    (tmp_path / "data.yaml").write_text(text)
    assert isinstance(read_names(tmp_path), Problem)
    with pytest.raises(ConfigError, match=r"data.yaml") as error:
        load_config(tmp_path / "data.yaml")
    assert len(str(error.value)) < 1000
    assert time.monotonic() - begun < SECONDS
    assert not (tmp_path / "made").exists()


def test_aliases_that_do_not_multiply_are_read() -> None:
    text = "a: &a {b: 1, c: [1, 2]}\nd: {<<: *a, e: 2}\nf: [*a, *a]\n"
    assert load_yaml(text) == {
        "a": (a := {"b": 1, "c": [1, 2]}),
        "d": {**a, "e": 2},
        "f": [a, a],
    }


def test_a_mapping_of_many_keys_with_one_twice_is_refused_at_once() -> None:
    keys = ", ".join(f'"{number}": 0' for number in range(200_000))
    begun = time.monotonic()
    with pytest.raises(ValueError, match="'199999' is twice"):
        load_json(f'{{{keys}, "199999": 1}}')
    assert time.monotonic() - begun < SECONDS


LAUGHS = "".join(f'<!ENTITY l{level} "{f"&l{level - 1};" * 10}">' for level in range(1, 12))
HOSTILE_XML = {
    "billion laughs": f'<!DOCTYPE a [<!ENTITY l0 "lol">{LAUGHS}]><annotation>&l11;</annotation>',
    "quadratic": f'<!DOCTYPE a [<!ENTITY x "{"x" * 10_000}">]><annotation>{"&x;" * 10_000}</annotation>',
    "a file": '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation><name>&x;</name></annotation>',
    "an address": '<!DOCTYPE a [<!ENTITY x SYSTEM "http://127.0.0.1:9/">]><annotation>&x;</annotation>',
    "a parameter": '<!DOCTYPE a [<!ENTITY % x SYSTEM "file:///etc/passwd"> %x;]><annotation/>',
}


@pytest.mark.parametrize("kind", HOSTILE_XML)
def test_xml_with_entities_of_its_own_is_refused(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "0001.xml"
    file.write_text(HOSTILE_XML[kind])
    begun = time.monotonic()
    found = read_xml(file, "annotation")
    assert isinstance(found, Problem)
    assert "must not declare entities of their own, got 'l0'" in str(found) or "got 'x'" in str(found)
    assert time.monotonic() - begun < SECONDS


def test_xml_may_name_a_document_type_and_the_usual_entities(tmp_path: Path) -> None:
    file = tmp_path / "0001.xml"
    file.write_text('<!DOCTYPE annotation SYSTEM "x.dtd"><annotation><name>a &amp; &#98;</name></annotation>')
    found = read_xml(file, "annotation")
    assert not isinstance(found, Problem)
    assert found.root.findtext("name") == "a & b"


def test_deep_xml_is_read_or_refused(tmp_path: Path) -> None:
    file = tmp_path / "0001.xml"
    file.write_text("<annotation>" + "<a>" * 200_000)
    assert isinstance(read_xml(file, "annotation"), Problem)


@pytest.mark.parametrize("make", [os.mkfifo, lambda file: os.symlink("/dev/zero", file), os.mkdir])
def test_what_is_no_file_is_not_waited_for(tmp_path: Path, make: object) -> None:
    assert callable(make)
    make(tmp_path / "0001.xml")
    for found in (read_text(tmp_path / "0001.xml"), read_xml(tmp_path / "0001.xml", "annotation")):
        assert isinstance(found, Problem)
        assert "it is not a regular file" in str(found)
