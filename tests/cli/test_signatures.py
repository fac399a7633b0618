"""Options of classes, as their constructors pass them on."""

import torch

from projects.cmt_aqr.cli.signatures import options_of, unknown_option


class Base:
    def __init__(self, width: int, *, depth: int = 1) -> None:
        self.size = width, depth


class PassesOn(Base):
    def __init__(self, name: str, **kwargs) -> None:
        super().__init__(**kwargs)
        self.name = name


class Keeps(Base):
    def __init__(self, name: str, **kwargs) -> None:
        super().__init__(1)
        self.others = kwargs


def test_options_are_those_of_all_constructors_that_get_them():
    assert options_of(Base) == (frozenset({'width', 'depth'}), True)
    assert options_of(PassesOn) == (frozenset({'name', 'width', 'depth'}), True)
    assert options_of(Keeps) == (frozenset({'name', 'width', 'depth'}), False)
    assert {'lr', 'weight_decay'} <= options_of(torch.optim.AdamW).names


def test_an_unknown_option_is_named_with_the_nearest_or_all():
    assert unknown_option('Base', 'widht', options_of(Base)) == (
        'Base has no option widht; did you mean width?'
    )
    assert unknown_option('Base', 'zzz', options_of(Base)) == (
        'Base has no option zzz; its options are depth, width'
    )


class TakesOne(Base):
    def __init__(self, **kwargs) -> None:
        self.name = kwargs.pop('name', '')
        super().__init__(**kwargs)


def test_an_option_taken_out_of_the_rest_is_one():
    assert options_of(TakesOne) == (frozenset({'name', 'width', 'depth'}), True)
