"""The encoders' formulas, edge by edge in float64, with no graph library and nothing shared between edges."""

import torch


def edges_of(triples, relations):
    """(target, relation, source) of every different edge: a triple's, and its inverse's."""
    edges = set()
    for head, relation, tail in triples.tolist():
        edges |= {(tail, relation, head), (head, relation + relations, tail)}
    return sorted(edges)


def correlation(left, right):
    """c_k = sum over i of left_i right_(k + i)."""
    return torch.stack([(left * right.roll(-k)).sum() for k in range(len(left))])


COMPOSE = {"sub": lambda x, z: x - z, "mul": lambda x, z: x * z, "corr": correlation}


def rgcn(layer, edges, relations, x, z):
    rows = []
    for target in range(len(x)):
        row = layer.bias + x[target] @ layer.loop
        for relation in range(2 * relations):
            sources = [edge[2] for edge in edges if edge[:2] == (target, relation)]
            matrix = sum(a * v for a, v in zip(layer.coefficients[relation], layer.bases, strict=True))
            for source in sources:
                row = row + x[source] @ matrix / len(sources)
        rows.append(row)
    return layer.activation(torch.stack(rows)), z


def compgcn(layer, edges, relations, x, z, name):
    compose, width = COMPOSE[name], x.shape[1]
    matrices = layer.sides[:width], layer.sides[width:]
    rows = []
    for target in range(len(x)):
        row = layer.bias + compose(x[target], layer.loop[0]) @ layer.loop_weight
        for side, matrix in enumerate(matrices):
            heard = [edge for edge in edges if edge[0] == target and (edge[1] >= relations) == side]
            for _, relation, source in heard:
                row = row + compose(x[source], z[relation]) @ matrix / len(heard)
        rows.append(row)
    return layer.activation(torch.stack(rows)), z @ layer.relation_weight


def attention(layer, edges, relations, x, z):
    heads, width = layer.message_scores.shape
    rows = []
    for target in range(len(x)):
        heard = [edge for edge in edges if edge[0] == target]
        parts = [torch.zeros(width, dtype=x.dtype)] * heads
        for head in range(heads):
            own = slice(head * width, (head + 1) * width)
            messages = [x[u] @ layer.source_weight[:, own] + z[r] @ layer.relation_part[:, own] for _, r, u in heard]
            scores = [x[target] @ layer.target_scores[:, head] + layer.message_scores[head] @ one for one in messages]
            if heard:
                shares = torch.nn.functional.leaky_relu(torch.stack(scores), 0.2).softmax(0)
                parts[head] = sum(share * message for share, message in zip(shares, messages, strict=True))
        rows.append(layer.bias + x[target] @ layer.loop + torch.cat(parts))
    return layer.activation(torch.stack(rows)), z @ layer.relation_weight


def encode(encoder, name, triples, x, z, composition="sub"):
    """What ``encoder``, called ``name``, makes of tables ``x`` and ``z``, by the formulas above."""
    relations = encoder.sizes.relation_count
    edges = edges_of(triples, relations)
    if encoder.inverses is not None:
        z = torch.cat([z, encoder.inverses])
    for layer in encoder.layers:
        if type(layer).__name__ == "Projection":
            z = z @ layer.weight
        elif name == "compgcn":
            x, z = compgcn(layer, edges, relations, x, z, composition)
        else:
            x, z = {"rgcn": rgcn, "attention": attention}[name](layer, edges, relations, x, z)
    return x, z[:relations]
