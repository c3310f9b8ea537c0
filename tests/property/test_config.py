"""Whatever a file holds, the checker answers: a config, or mistakes that say where."""

import json
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from cascaded.config import Config, Mistake, explain, load, schema

EXAMPLES = sorted((Path(__file__).parents[2] / "examples" / "config").glob("*.toml"))
STRUCTS = [
    kind
    for kind in vars(schema).values()
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and kind is not msgspec.Struct
]
KEYS = sorted({name for struct in STRUCTS for name in struct.__struct_fields__} | {"kind"})
SECRET = "a-secret-of-good-length"
FUZZ = 60
"""Examples that take long to make up."""
ENV = {"KEY": SECRET, "CREDENTIALS_DIRECTORY": "/credentials"}


def read_file(path: Path) -> bytes:
    if "missing" in str(path):
        raise FileNotFoundError(2, "No such file or directory")
    return SECRET.encode()


def judged(text: str | bytes) -> Config | list[Mistake]:
    found = load(text, source_name="c.toml", env=ENV, read_file=read_file, uid=1)
    if isinstance(found, Config):
        assert SECRET not in explain(found) + repr(found)
        return found
    assert found
    last = 1 + (text.count("\n") if isinstance(text, str) else text.count(b"\n"))
    for mistake in found:
        line = str(mistake)
        assert 1 <= mistake.line <= last
        assert line.isprintable()
        assert len(line) < 1000
        assert SECRET not in line
    assert [mistake.line for mistake in found] == sorted(mistake.line for mistake in found)
    return found


def toml(value: Any) -> str:
    """A value as TOML; JSON is near enough for all but tables."""
    if isinstance(value, dict):
        entries = (f"{json.dumps(key)} = {toml(entry)}" for key, entry in value.items())
        return f"{{ {', '.join(entries)} }}"
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return json.dumps(value).replace("Infinity", "inf").replace("NaN", "nan")


words = st.sampled_from(
    [
        "openai_compatible",
        "embedded",
        "fast",
        "auto",
        "cascade/default",
        "default",
        "a",
        "b",
        "http://localhost/v1",
        "http://[",
        "/missing",
        "/x",
        "127.0.0.1:1",
        "0660",
        "0.15",
        "1e-9",
        "env:KEY",
        "env:NONE",
        "file:/x",
        "file:/missing",
        "credential:x",
        "credential:..",
        "$KEY",
    ]
)
scalars = (
    words
    | st.integers(-(2**63), 2**63 - 1)
    | st.integers(0, 3)
    | st.floats()
    | st.booleans()
    | st.text(st.characters(codec="utf-8"), max_size=20)
)
names = st.sampled_from(["a", "b", "default", "embedded", "A.b", "auto", "", "é"])
keys = st.sampled_from(KEYS) | names
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=5),
    max_leaves=6,
)
tables = st.dictionaries(keys, values, max_size=6)
documents = st.fixed_dictionaries(
    {},
    optional={
        name: tables | st.dictionaries(names, tables | values, max_size=3) | values
        for name in (*Config.__struct_fields__, "other")
    },
)


@given(st.text(st.characters(), max_size=200) | st.binary(max_size=200))
def test_any_text(text: str | bytes) -> None:
    if isinstance(text, str):
        text = text.encode("utf-8", "surrogatepass")
    judged(text)


@settings(max_examples=FUZZ)
@given(documents)
def test_any_toml(document: dict[str, Any]) -> None:
    judged("".join(f"{name} = {toml(value)}\n" for name, value in document.items()))


@given(st.sampled_from(EXAMPLES), st.data())
def test_examples_with_a_slip(path: Path, data: st.DataObject) -> None:
    text = path.read_text()
    start = data.draw(st.integers(0, len(text)))
    length = data.draw(st.integers(0, 12))
    slip = data.draw(st.sampled_from(["", '"', "\n", "]", "=", "[", ".", "\\", "x", "0", " "]))
    judged(text[:start] + slip + text[start + length :])


sound_names = st.from_regex(r"[a-z0-9][a-z0-9_.-]{0,8}", fullmatch=True).filter("auto".__ne__)
amounts = st.decimals(0, 1000, places=6).map(lambda amount: f"{amount:f}")


@settings(max_examples=FUZZ)
@given(
    models=st.dictionaries(sound_names, st.tuples(amounts, amounts), min_size=1, max_size=4),
    data=st.data(),
)
def test_sound_configs_come_back_from_their_explanation(
    models: dict[str, tuple[str, str]], data: st.DataObject
) -> None:
    rungs = data.draw(st.lists(st.sampled_from(sorted(models)), min_size=1, unique=True))
    thresholds = [data.draw(st.floats(0, 1)) for _ in rungs]
    text = '[providers.p]\nkind = "openai_compatible"\nbase_url = "http://h"\napi_key = "env:KEY"\n'
    for name, (dear, cheap) in models.items():
        text += f'[models."{name}"]\nprovider = "p"\n'
        text += f'input_usd_per_mtok = {dear}\noutput_usd_per_mtok = "{cheap}"\n'
    text += f"[ladders.default]\nrungs = {toml(rungs)}\nthresholds = {toml(thresholds)}\n"
    config = judged(text)
    assert isinstance(config, Config), [str(mistake) for mistake in config]
    assert judged(explain(config)) == config
    for name, (dear, _) in models.items():
        price = config.models[name].price
        assert price is not None
        assert price.rates.input == int(dear.replace(".", ""))
