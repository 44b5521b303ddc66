import pytest
from codistill.tasks.parameters import Parameters
from codistill.tasks.registry import Registry


class Size(Parameters):
    size: int = 1


def registry():
    made = Registry("things")

    @made.register("one", Size)
    def one(parameters):
        """Does one
        thing.

        And more.
        """
        return parameters.size

    return made


def test_an_entry_has_its_function_parameters_and_first_sentence():
    entry = registry()["one"]
    assert entry.function(entry.parameters(size=3)) == 3
    assert entry.sentence == "Does one thing."
    assert "one" in registry() and "two" not in registry()


def test_a_taken_name_and_a_missing_docstring_are_refused():
    made = registry()
    with pytest.raises(ValueError, match="'one' is taken"):
        made.register("one", Size)(lambda parameters: None)
    with pytest.raises(ValueError, match="'two' needs a docstring"):
        made.register("two", Size)(lambda parameters: None)
    assert made.names() == ["one"]


def test_entries_keep_the_order_in_which_they_were_entered():
    made = registry()
    for name in ("z", "a"):
        function = lambda parameters: None  # noqa: E731
        function.__doc__ = "Nothing."
        made.register(name, Size)(function)
    assert made.names() == ["one", "z", "a"] == [entry.name for entry in made]


def test_an_outside_package_adds_its_own_when_a_name_is_first_asked_for(monkeypatch):
    made, loaded = registry(), []

    class Point:
        def load(self):
            loaded.append(self)

            @made.register("outside", Size)
            def outside(parameters):
                """From elsewhere."""

    groups = []
    monkeypatch.setattr("codistill.tasks.registry.entry_points", lambda group: groups.append(group) or [Point()])
    assert not loaded
    assert "outside" in made and made["outside"].sentence == "From elsewhere."
    assert made.names() == ["one", "outside"]
    assert groups == ["codistill.things"] and len(loaded) == 1


def test_every_operation_and_variant_says_what_it_does():
    from codistill.tasks.absorb import ABSORBS
    from codistill.tasks.aggregate import AGGREGATES
    from codistill.tasks.encoding import ENCODINGS
    from codistill.tasks.extract import EXTRACTS
    from codistill.tasks.filters import FILTERS
    from codistill.tasks.keys import KEYS
    from codistill.tasks.operations import OPERATIONS
    from codistill.tasks.retrievals import RETRIEVALS
    from codistill.tasks.terms import TERMS
    from codistill.tasks.valence import VALENCES

    life = ["train", "extract", "store", "share", "aggregate", "retrieve", "absorb", "consolidate", "decay", "forget"]
    assert list(OPERATIONS) == life
    for registered in (ABSORBS, AGGREGATES, ENCODINGS, EXTRACTS, FILTERS, KEYS, RETRIEVALS, TERMS, VALENCES):
        for entry in registered:
            assert entry.sentence and entry.parameters.model_config["extra"] == "forbid"
