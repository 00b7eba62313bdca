"""Writes the expected renderings beside the templates, with Jinja set up as transformers does."""

import datetime
import json
import pathlib

import jinja2.ext
from jinja2.exceptions import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

CHATS = {
    "user": [("user", "Hello <|you|> & 'me'")],
    "turns": [
        ("user", " What is 2 + 2? "),
        ("assistant", "<think>\nadd\n</think>\n\n4 "),
        ("user", "and\n3 + 3?"),
    ],
    "system": [
        ("system", "Be brief. "),
        ("user", "Caf\u00e9? \u2603"),
        ("assistant", "Oui."),
        ("user", "a banana"),
    ],
}


def tojson(value, ensure_ascii=False, indent=None):
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)


def raise_exception(reason):
    raise TemplateError(reason)


def strftime_now(style):
    return datetime.datetime(2026, 11, 22, 10, 30).strftime(style)


environment = ImmutableSandboxedEnvironment(
    trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols]
)
environment.filters["tojson"] = tojson
environment.globals.update(raise_exception=raise_exception, strftime_now=strftime_now)
folder = pathlib.Path(__file__).parent
for path in sorted(folder.glob("*.jinja")):
    template = environment.from_string(path.read_text())
    for name, chat in CHATS.items():
        messages = [{"role": role, "content": content} for role, content in chat]
        for generate, suffix in [(False, ""), (True, ".generate")]:
            text = template.render(
                messages=messages,
                add_generation_prompt=generate,
                bos_token="<s>",
                eos_token="</s>",
            )
            (folder / f"{path.stem}.{name}{suffix}.txt").write_text(text)
