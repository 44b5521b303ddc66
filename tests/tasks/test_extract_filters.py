"""What an agent tells others of samples that it is sure of; the rest is counted."""

import torch
from codistill.tasks.extract import EXTRACTS
from codistill.tasks.score import score

FILTERS = [{"confidence": {"least": 0.24, "scale": "probabilities"}}]


def test_only_rows_that_pass_are_made_and_the_rest_is_counted(agent, context, world):
    said = EXTRACTS["logits"].parameters.model_validate({"scale": "probabilities", "filters": FILTERS})
    made = EXTRACTS["logits"].function(agent, said, context)
    sure = torch.softmax(score(agent.models["model"], world.x_train, world.public), 1)
    passes = sure.amax(1).double() >= 0.24
    assert 0 < int(passes.sum()) < len(world.public)
    assert torch.equal(made.ids, world.public[passes]) and torch.equal(made.values, sure[passes])
    (event,) = agent.memory.told()
    assert (event.what, event.about, event.count) == ("filtered", "confidence", int((~passes).sum()))
