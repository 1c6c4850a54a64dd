import json

from m2dx.contract.host import PluginHost
from m2dx.recipe.model import field_lines, json_schema, recipe_model
from m2dx.recipe.schema import Recipe


def test_the_schema_has_components_and_documentation(host):
    schema = json_schema(host)
    json.dumps(schema)
    definitions = schema["$defs"]
    assert definitions["loss_huber"]["properties"]["name"]["const"] == "huber"
    delta = definitions["loss_huber"]["properties"]["delta"]
    assert (delta["type"], delta["default"]) == ("number", 1.0)
    assert delta["description"] == "where it turns linear, in units of the target"
    choices = definitions["TaskSection"]["properties"]["loss"]
    named, nothing = choices["anyOf"]
    assert nothing == {"type": "null"}
    assert named["anyOf"] == [
        {"enum": ["huber", "norm_mse"]},  # without options, the name will do
        {"$ref": "#/$defs/loss_huber"},
        {"$ref": "#/$defs/loss_norm_mse"},
    ]
    assert choices["description"] == "Compares the two."
    assert definitions["TrainSection"]["properties"]["epochs"]["exclusiveMinimum"] == 0


def test_the_schema_refuses_unknown_keys_everywhere(host):
    schema = json_schema(host)
    objects = [schema, *(d for d in schema["$defs"].values() if d.get("type") == "object")]
    assert len(objects) > 15
    assert all(section["additionalProperties"] is False for section in objects)


def test_the_schema_allows_a_file_that_extends_another(host):
    schema = json_schema(host)
    assert schema["anyOf"] == [{"required": ["data"]}, {"required": ["extends"]}]
    assert "extends" in schema["properties"]
    assert not [name for name, section in schema["$defs"].items() if "required" in section]


def test_each_field_has_a_line_with_its_documentation(host):
    lines = {line.path: line for line in field_lines(host)}
    assert lines["train.batch_size"][1:3] == ("int > 0", "2048")
    assert lines["train.accumulate"][1:3] == ("int > 0 | 'auto'", "1")
    assert lines["data.workers"].type == "int >= 0, <= 256 | null"
    assert lines["data.max_bad_fraction"].type == "float >= 0, <= 1"
    assert lines["data.short_clips"].type == "'pad' | 'repeat'"
    assert lines["tasks.<name>.loss"][1:] == ("loss component | null", "null", "Compares the two.")
    assert lines["noise.source"].type == "noise source component | null"
    assert lines["evaluation.evaluators"].type == "dict[str, evaluator component]"
    assert lines["model.patch_size"][1:3] == ("[int > 0, int > 0]", "[16, 16]")
    assert lines["losses.huber.delta"][1:] == (
        "float",
        "1.0",
        "where it turns linear, in units of the target",
    )
    assert lines["datasets.csv.root"][1:3] == ("Path | null", "null")
    assert "losses.huber.name" not in lines
    recipe_lines = [line for line in lines.values() if line.path.split(".")[0] in Recipe.model_fields]
    assert not [line.path for line in recipe_lines if not line.description]


def test_a_host_without_components_still_has_a_model():
    model = recipe_model(PluginHost())
    assert issubclass(model, Recipe)
    assert set(model.model_fields) == set(Recipe.model_fields)
