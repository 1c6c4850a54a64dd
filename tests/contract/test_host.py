"""Plugins as users install them: found, listed, blamed."""

import sys
import textwrap
from types import SimpleNamespace

import pytest
import torch

import m2dx
from m2dx.cli.shared import plugin_host
from m2dx.contract.components import KINDS, TaskShapes
from m2dx.contract.host import PluginHost, hook_name
from m2dx.contract.options import ComponentSpec

LOSS = """
    import m2dx

    class Loss(m2dx.Loss):
        name = "{name}"

        def __init__(self, *, scale: float = 1.0) -> None:
            super().__init__()
            self.scale = scale

        def forward(self, prediction, target):
            return self.scale * (prediction - target).abs().mean()

    @m2dx.hookimpl
    def losses():
        return [Loss]
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Installs a package with one module and one entry point, as pip would leave it."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("M2DX_PLUGINS", raising=False)
    modules = []

    def install(name, code, *, entry_point=None, module=None):
        module = module or f"plugin_under_test_{name}"
        (tmp_path / f"{module}.py").write_text(textwrap.dedent(code), encoding="utf-8")
        info = tmp_path / f"m2dx_{name}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: m2dx-{name}\nVersion: 1.2\n", encoding="utf-8"
        )
        (info / "entry_points.txt").write_text(
            f"[m2dx]\n{entry_point or name} = {module}\n", encoding="utf-8"
        )
        modules.append(module)

    yield install
    for module in modules:
        sys.modules.pop(module, None)


def record(host, name):
    return next(record for record in host.records if record.name == name)


def test_an_installed_plugin_is_found_and_its_component_built(install):
    install("acme", LOSS.format(name="acme_l1"))
    host = PluginHost.discover()
    acme = record(host, "acme")
    assert (acme.distribution, acme.version, acme.error) == ("m2dx-acme", "1.2", None)
    assert acme.components == {"loss": ("acme_l1",)}
    assert host.records[0].name == "m2dx"
    spec = host.option_model("loss", "acme_l1").model_validate({"name": "acme_l1", "scale": "2e0"})
    loss = host.build("loss", spec)
    assert isinstance(loss, host.component("loss", "acme_l1"))
    assert loss(torch.tensor([3.0]), torch.tensor([1.0])) == 4.0


def test_the_cores_components_come_through_the_same_hooks(monkeypatch):
    monkeypatch.setenv("M2DX_PLUGINS", "")
    host = PluginHost.discover()
    assert [(record.name, record.error) for record in host.records] == [("m2dx", None)]
    assert {"norm_mse", "mse", "cross_entropy", "bce"} <= set(host.names("loss"))
    assert {kind for kind in KINDS if not host.names(kind)} <= {
        "regulariser",
        "augmentation",
        "callback",
        "weight_map",
    }  # which only plugins bring


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        (
            "import a_package_that_is_not_there",
            "ModuleNotFoundError: No module named 'a_package_that_is_not_there'",
        ),
        ("raise SystemExit('no GPU')", "SystemExit: no GPU"),
        ("raise BaseException('no')", "BaseException: no"),
        ("def f(:", "SyntaxError: "),
        ("1 / 0", "ZeroDivisionError: division by zero"),
    ],
)
def test_a_plugin_that_fails_to_import_breaks_nothing_else(code, cause, install):
    install("broken", code)
    install("acme", LOSS.format(name="acme_l1"))
    host = PluginHost.discover()
    assert record(host, "broken").error.startswith(cause)
    assert record(host, "broken").distribution == "m2dx-broken"
    assert record(host, "acme").error is None
    assert "acme_l1" in host.names("loss")
    host.component("loss", "norm_mse")
    with pytest.raises(m2dx.PluginError) as raised:
        host.component("loss", "its_loss")
    assert "there is no loss 'its_loss'; known: " in str(raised.value)
    assert "failed to load and may provide it: broken (package m2dx-broken) (" + cause in str(raised.value)


def test_a_misspelt_hook_is_that_plugins_error(install):
    install("acme", LOSS.format(name="acme_l1").replace("def losses", "def lossses"))
    install("good", LOSS.format(name="good_l1"))
    host = PluginHost.discover()
    assert record(host, "acme").error == "there is no hook 'lossses'; did you mean 'losses'?"
    assert record(host, "good").error is None


def test_components_of_a_plugin_that_is_broken_elsewhere_are_refused_by_its_name(install):
    code = LOSS.format(name="acme_l1") + "\n    @m2dx.hookimpl\n    def dataset():\n        return []\n"
    install("acme", code)
    host = PluginHost.discover()
    assert "acme_l1" not in host.names("loss")
    assert record(host, "acme").components == {"loss": ("acme_l1",)}
    message = (
        r"the loss 'acme_l1' of the plugin acme \(package m2dx-acme\) cannot be used: "
        "there is no hook 'dataset'; did you mean 'datasets'"
    )
    with pytest.raises(m2dx.PluginError, match=message):
        host.option_model("loss", "acme_l1")


def test_two_plugins_with_one_component_are_both_named(install):
    install("acme", LOSS.format(name="l1"))
    install("ajax", LOSS.format(name="l1").replace("return [Loss]", "return [Loss, Other]") + OTHER)
    host = PluginHost.discover()
    message = (
        r"the loss 'l1' is in 2 plugins: acme \(package m2dx-acme\), ajax \(package m2dx-ajax\); uninstall"
    )
    with pytest.raises(m2dx.PluginError, match=message):
        host.component("loss", "l1")
    with pytest.raises(m2dx.PluginError, match=r"acme.*ajax"):
        host.build("loss", ComponentSpec(name="l1"))
    assert "l1" not in host.names("loss")
    assert record(host, "acme").error == "the loss 'l1' is also in ajax (package m2dx-ajax)"
    host.component("loss", "other")  # what does not clash goes on


OTHER = """
    class Other(Loss):
        name = "other"
"""


def test_a_plugin_cannot_take_the_place_of_a_core_component(install):
    install("acme", LOSS.format(name="norm_mse"))
    with pytest.raises(m2dx.PluginError, match=r"is in 2 plugins: m2dx, acme \(package m2dx-acme\)"):
        PluginHost.discover().component("loss", "norm_mse")


def test_two_packages_with_one_entry_point_name(install):
    install("acme", LOSS.format(name="a"), entry_point="same")
    install("ajax", LOSS.format(name="b"), entry_point="same")
    host = PluginHost.discover()
    errors = [record.error for record in host.records if record.name == "same"]
    assert errors.count(None) == 1
    assert any(
        error and error.startswith("the name 'same' is taken by same (package m2dx-a") for error in errors
    )


@pytest.mark.parametrize(
    ("value", "loaded"),
    [
        (None, ["acme", "good"]),
        ("", []),
        ("good", ["good"]),
        (" good , acme,", ["acme", "good"]),
        ("m2dx", []),
    ],
)
def test_the_environment_restricts_what_is_loaded(value, loaded, install, monkeypatch):
    install("acme", LOSS.format(name="a"))
    install("good", LOSS.format(name="b"))
    if value is not None:
        monkeypatch.setenv("M2DX_PLUGINS", value)
    names = [record.name for record in PluginHost.discover().records]
    assert names[0] == "m2dx"
    assert [name for name in names if name in ("acme", "good")] == loaded
    assert value is None or len(names) == 1 + len(loaded)


def test_what_a_plugin_prints_while_it_is_imported_is_not_in_the_output(install, capsys):
    install("acme", "\n    print('hello')" + LOSS.format(name="acme_l1"))
    assert "acme_l1" in plugin_host().names("loss")
    assert capsys.readouterr() == ("", "hello\n")


def test_a_plugin_that_is_left_out_is_not_imported_but_mentioned(install, monkeypatch):
    install("acme", "raise SystemExit")
    monkeypatch.setenv("M2DX_PLUGINS", "")
    host = PluginHost.discover()
    assert "plugin_under_test_acme" not in sys.modules
    with pytest.raises(m2dx.PluginError, match=r"M2DX_PLUGINS leaves out: .*acme"):
        host.component("loss", "acme_l1")


def test_the_environment_must_name_installed_plugins(install, monkeypatch):
    install("acme", LOSS.format(name="a"))
    monkeypatch.setenv("M2DX_PLUGINS", "acmee")
    with pytest.raises(m2dx.PluginError, match="'acmee' is not installed; did you mean 'acme'"):
        PluginHost.discover()


class Good(m2dx.Loss):
    name = "good"

    def forward(self, prediction, target):
        return prediction


class Nameless(m2dx.Loss):
    def forward(self, prediction, target):
        return prediction


class Abstract(m2dx.Loss):
    name = "abstract"


class Positional(Good):
    name = "positional"

    def __init__(self, target_dim) -> None:
        super().__init__()


class Failing(Good):
    name = "failing"

    def __init__(self, *, kind: str = "bug") -> None:
        super().__init__()
        raise m2dx.AudioError("no sound") if kind == "audio" else RuntimeError("first line\nsecond line")


def plugin(**hooks):
    return SimpleNamespace(**{name: m2dx.hookimpl(function) for name, function in hooks.items()})


def raising():
    raise OSError("disk full")


BAD = {
    "no list": (lambda: Good, "the hook 'losses' must return a list of classes, but gave <class"),
    "nothing": (lambda: None, "the hook 'losses' must return a list of classes, but gave None"),
    "instance": (lambda: [Good()], "the hook 'losses' must return subclasses of m2dx.Loss, but gave Good()"),
    "other kind": (
        lambda: [m2dx.Dataset],
        "must return subclasses of m2dx.Loss, but gave <class 'm2dx.contract.components.D",
    ),
    "no name": (lambda: [Nameless], "Nameless must have a class attribute `name`, a text, but it is None"),
    "abstract": (lambda: [Abstract], "Abstract ('abstract') lacks what its kind must have: forward"),
    "twice": (lambda: [Good, Good], "Good and Good have one name, 'good'"),
    "signature": (
        lambda: [Positional],
        "Positional ('positional'): the engine cannot give the positional argument",
    ),
    "raises": (raising, "the hook 'losses' failed: OSError: disk full"),
    "argument": (lambda data: [], "PluginValidationError: "),
}


@pytest.mark.parametrize(("hook", "error"), BAD.values(), ids=BAD.keys())
def test_a_plugin_that_breaks_the_contract_is_recorded_with_the_reason(hook, error):
    host = PluginHost({"bad": plugin(losses=hook), "good": plugin(losses=lambda: [Good])})
    assert error in record(host, "bad").error
    assert "\n" not in record(host, "bad").error
    assert record(host, "good").error is None
    assert host.component("loss", "good") is Good


def test_several_reasons_are_all_given():
    host = PluginHost({"bad": plugin(losses=lambda: [Nameless, Abstract], datasets=raising)})
    error = record(host, "bad").error
    assert "Nameless" in error and "Abstract" in error and "disk full" in error


def _no_datasets():
    return []


def test_a_hook_without_its_decorator_is_not_ignored():
    bare = SimpleNamespace(losses=lambda: [Good], datasets=m2dx.hookimpl(_no_datasets))
    assert (
        record(PluginHost({"a": bare}), "a").error == "the hook 'losses' needs the decorator @m2dx.hookimpl"
    )
    assert "implements no hook" in record(PluginHost({"a": SimpleNamespace()}), "a").error


def test_options_and_engine_arguments_reach_the_component():
    class Mapper(m2dx.OnlineMapper):
        name = "mapper"

        def __init__(self, shapes, *, width: int) -> None:
            super().__init__(shapes)
            self.width = width

        def forward(self, tokens):
            return tokens

    host = PluginHost({"a": plugin(online_mappers=lambda: [Mapper])})
    spec = host.option_model("online_mapper", "mapper").model_validate({"name": "mapper", "width": "3"})
    shapes = TaskShapes(grid=(5, 38), embed_dim=192, target_frames=None, target_dim=8)
    mapper = host.build("online_mapper", spec, shapes=shapes)
    assert (mapper.shapes, mapper.width) == (shapes, 3)


def test_a_component_that_cannot_be_built_is_blamed_unless_it_says_itself_why():
    host = PluginHost({"acme": plugin(losses=lambda: [Failing])})
    model = host.option_model("loss", "failing")
    message = "loss 'failing' of plugin 'acme' could not be built: RuntimeError: first line second line"
    with pytest.raises(m2dx.PluginError, match=message) as raised:
        host.build("loss", model(name="failing"))
    assert isinstance(raised.value.__cause__, RuntimeError)
    with pytest.raises(m2dx.AudioError, match=r"^no sound$"):
        host.build("loss", model(name="failing", kind="audio"))


def test_a_misspelt_component_or_kind_is_suggested():
    host = PluginHost({"a": plugin(losses=lambda: [Good])})
    with pytest.raises(m2dx.PluginError, match="there is no loss 'goood'; did you mean 'good'"):
        host.component("loss", "goood")
    with pytest.raises(ValueError, match="no component kind 'losses'; did you mean 'loss'"):
        host.component("losses", "good")


def test_each_kind_has_its_hook():
    from m2dx.contract import hookspecs

    assert [hook for hook in map(hook_name, KINDS) if not callable(getattr(hookspecs, hook))] == []
