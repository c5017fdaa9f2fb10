import pytest

from vidformers.config.values import coerce, literal, nearest_key


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("(3, 7, 7)", [3, 7, 7]),
        ("[[1, 2.0], [3, 2.0]]", [[1, 2.0], [3, 2.0]]),
        ("None", None),
        ("true", True),
        ("False", False),
        ("none", "none"),  # a value of position_embedding
        ("adamw", "adamw"),
        ("/data/k400 (part 1", "/data/k400 (part 1"),
        (7, 7),
        (["1e-4", 2], [1e-4, 2]),
    ],
)
def test_literal(text, value):
    assert literal(text) == value


@pytest.mark.parametrize(
    ("value", "default", "result"),
    [
        (5, 0.0, 5.0),
        ("5e-2", 0.0, 0.05),
        ("(256, 320)", [1, 2], [256, 320]),
        ((256, 320), [], [256, 320]),
        (None, None, None),
        ("None", None, None),
        (1, None, 1.0),
        ("None", "rand", ""),
        (None, "", ""),
        ("2024", "output", "2024"),
        ("' '", ",", " "),
        ("true", False, True),
        ("[shuffle, freeze[first],splice[0.5,other]]", [], ["shuffle", "freeze[first]", "splice[0.5,other]"]),
        ("[]", [1], []),
    ],
)
def test_coerce(value, default, result):
    got = coerce("A.B", value, default)
    assert got == result and type(got) is type(result)


@pytest.mark.parametrize(
    ("value", "default", "wanted"),
    [
        ("eight", 8, "a whole number"),
        (8.5, 8, "a whole number"),
        (True, 8, "a whole number"),
        (True, 0.1, "a number"),
        ("fast", 0.1, "a number"),
        (None, 0.1, "a number"),
        (1, True, "True or False"),
        (16, "fp32", "text"),
        (256, [256, 320], "a list"),
        ("high", None, "a number or None"),
    ],
)
def test_coerce_refuses(value, default, wanted):
    with pytest.raises(ValueError, match=r"A\.B is ") as error:
        coerce("A.B", value, default, where=" (run.yaml, line 3)")
    assert repr(value) in str(error.value) and f"wanted {wanted}" in str(error.value)
    assert "(run.yaml, line 3)" in str(error.value)


def test_nearest_key():
    schema = {
        "SOLVER": {"BASE_LR": 0.1, "STEPS": []},
        "TRAIN": {"BATCH_SIZE": 1, "ENABLE": True},
        "TEST": {"BATCH_SIZE": 1},
        "DATA": {"NUM_FRAMES": 8},
        "MODEL": {"NUM_CLASSES": 400},
    }
    assert nearest_key("solver.base_lr", schema) == "SOLVER.BASE_LR"
    assert nearest_key("SOLVER.BASELR", schema) == "SOLVER.BASE_LR"
    assert nearest_key("TRIAN.BATCH_SIZE", schema) == "TRAIN.BATCH_SIZE"
    assert nearest_key("TETS.BATCH_SIZE", schema) == "TEST.BATCH_SIZE"
    assert nearest_key("MODEL.NUM_FRAMES", schema) == "DATA.NUM_FRAMES"
    assert nearest_key("NUM_FRAME", schema) == "DATA.NUM_FRAMES"
    assert nearest_key("SOVLER", schema) == "SOLVER"
    assert nearest_key("SOLVER.QUITE_DIFFERENT", schema) is None
