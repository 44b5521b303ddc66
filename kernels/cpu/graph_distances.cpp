// Distances of query points to candidate entities and their derivatives, for graph_scores.py: nothing of size [B, n, D] is made.
//
// Plain C++ with vector extensions that GCC and Clang share: what the machine has (AVX2, AVX-512, NEON) is the compiler's
// affair. All numbers are float32. A modulus is of complex numbers, the real parts in the first half of a row.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

enum Kind { ABSOLUTE, EUCLIDEAN, MODULUS, PRODUCT };

constexpr int64_t LANES = 16, QUERIES = 8, PART = 32, TOGETHER = 16, AHEAD = 4;

typedef float Floats __attribute__((vector_size(4 * LANES)));
typedef int32_t Integers __attribute__((vector_size(4 * LANES)));

Floats load(const float *from) {
    Floats made;
    std::memcpy(&made, from, sizeof made);
    return made;
}

// The first `count` numbers, and zeros.
Floats load(const float *from, int64_t count) {
    float some[LANES] = {};
    std::memcpy(some, from, count * sizeof(float));
    return load(some);
}

void store(float *to, Floats made) { std::memcpy(to, &made, sizeof made); }

Floats magnitude(Floats of) { return (Floats)((Integers)of & 0x7fffffff); }

Floats root(Floats of) {
    float some[LANES];
    store(some, of);
    for (int64_t lane = 0; lane < LANES; lane++) some[lane] = std::sqrt(some[lane]);
    return load(some);
}

float total(Floats of) {
    float some[LANES];
    store(some, of);
    for (int64_t half = LANES / 2; half; half /= 2)
        for (int64_t lane = 0; lane < half; lane++) some[lane] += some[lane + half];
    return some[0];
}

void prefetch(const float *row, int64_t width) {
    for (int64_t d = 0; d < width; d += 16) __builtin_prefetch(row + d);
}

template <Kind KIND>
Floats length(Floats query, Floats entity) {
    if (KIND == PRODUCT) return query * entity;
    const Floats apart = query - entity;
    return KIND == ABSOLUTE ? magnitude(apart) : apart * apart;
}

Floats modulus(Floats query, Floats entity, Floats query_imaginary, Floats entity_imaginary) {
    const Floats real = query - entity, imaginary = query_imaginary - entity_imaginary;
    return root(real * real + imaginary * imaginary);
}

template <Kind KIND>
float finished(float sum) {
    if (KIND == EUCLIDEAN) return std::sqrt(sum);
    return KIND == PRODUCT ? -sum : sum;
}

// LANES numbers of a row, or as many as there are: the compiler knows which.
template <bool WHOLE>
Floats take(const float *from, int64_t left) {
    return WHOLE ? load(from) : load(from, left);
}

template <bool WHOLE>
void put(float *to, Floats made, int64_t left) {
    if (WHOLE) return store(to, made);
    std::memcpy(to, &made, left * sizeof(float));
}

template <Kind KIND, bool WHOLE>
Floats lengths(const float *query, const float *entity, int64_t half, int64_t d) {
    const int64_t left = half - d;
    const Floats own = take<WHOLE>(query + d, left), theirs = take<WHOLE>(entity + d, left);
    if (KIND != MODULUS) return length<KIND>(own, theirs);
    return modulus(own, theirs, take<WHOLE>(query + half + d, left), take<WHOLE>(entity + half + d, left));
}

template <Kind KIND>
float distance(const float *query, const float *entity, int64_t width) {
    const int64_t half = KIND == MODULUS ? width / 2 : width;
    Floats sum[2] = {};
    int64_t d = 0;
    for (; d + 2 * LANES <= half; d += 2 * LANES) {
        sum[0] += lengths<KIND, true>(query, entity, half, d);
        sum[1] += lengths<KIND, true>(query, entity, half, d + LANES);
    }
    for (; d + LANES <= half; d += LANES) sum[0] += lengths<KIND, true>(query, entity, half, d);
    if (d < half) sum[1] += lengths<KIND, false>(query, entity, half, d);
    return finished<KIND>(total(sum[0] + sum[1]));
}

struct Call {
    const float *query;            // [rows, width]
    const float *entities;         // [*, width]
    const int64_t *candidates;     // [rows, count], or [count] for all rows
    int64_t count, width;
};

// Where each entity is a candidate: the places of e in [rows, count] are `places`[`starts`[e]] to `places`[`starts`[e + 1]].
// Entity by entity the table is read once and in order, and the queries stay in the second cache.
struct Order {
    const int64_t *starts, *places;
    int64_t many;
};

template <Kind KIND>
void distances_of_own(const Call &call, const Order &order, int64_t first, int64_t last, float *made) {
    const int64_t end = order.starts[last] - 1;
    for (int64_t entity = first; entity < last; entity++)
        for (int64_t one = order.starts[entity]; one < order.starts[entity + 1]; one++) {
            const int64_t place = order.places[one], later = order.places[one + AHEAD < end ? one + AHEAD : end];
            prefetch(call.query + later / call.count * call.width, call.width);
            made[place] =
                distance<KIND>(call.query + place / call.count * call.width, call.entities + entity * call.width, call.width);
        }
}

// The distances of QUERIES queries to the LANES entities of a panel [width, LANES], whose sums stay in registers.
// Parts are summed by themselves, so that a wide row's sum is as exact as a narrow one's.
template <Kind KIND>
void tile(const float *const *queries, const float *panel, int64_t width, Floats *made) {
    const int64_t half = KIND == MODULUS ? width / 2 : width;
    Floats sum[QUERIES] = {};
    for (int64_t start = 0; start < half; start += PART) {
        const int64_t end = start + PART < half ? start + PART : half;
        Floats part[QUERIES] = {};
        for (int64_t d = start; d < end; d++) {
            const Floats theirs = load(panel + d * LANES);
            const Floats imaginary = KIND == MODULUS ? load(panel + (half + d) * LANES) : theirs;
            for (int64_t q = 0; q < QUERIES; q++) {
                const Floats own = Floats{} + queries[q][d];
                if (KIND == MODULUS)
                    part[q] += modulus(own, theirs, Floats{} + queries[q][half + d], imaginary);
                else
                    part[q] += length<KIND>(own, theirs);
            }
        }
        for (int64_t q = 0; q < QUERIES; q++) sum[q] += part[q];
    }
    for (int64_t q = 0; q < QUERIES; q++) made[q] = KIND == EUCLIDEAN ? root(sum[q]) : KIND == PRODUCT ? -sum[q] : sum[q];
}

// A panel of entities, one in a lane, stays in the first cache while all queries pass.
template <Kind KIND>
void distances_of_shared(const Call &call, int64_t first, int64_t last, float *made) {
    std::vector<float> panel(call.width * LANES);
    for (int64_t start = 0; start < call.count; start += LANES) {
        const int64_t many = call.count - start < LANES ? call.count - start : LANES;
        for (int64_t lane = 0; lane < many; lane++) {
            const float *row = call.entities + call.candidates[start + lane] * call.width;
            for (int64_t d = 0; d < call.width; d++) panel[d * LANES + lane] = row[d];
        }
        for (int64_t row = first; row < last; row += QUERIES) {
            const float *queries[QUERIES];
            Floats found[QUERIES];
            // Beyond the last query it is the last once more, and not written.
            for (int64_t q = 0; q < QUERIES; q++)
                queries[q] = call.query + (row + q < last ? row + q : last - 1) * call.width;
            tile<KIND>(queries, panel.data(), call.width, found);
            for (int64_t q = 0; q < QUERIES && row + q < last; q++)
                std::memcpy(made + (row + q) * call.count + start, found + q, many * sizeof(float));
        }
    }
}

// What both parts of a complex difference are multiplied with to be a weighted slope of its modulus. Where points meet there
// is none, and what is no number stays so.
Floats shared_by(Floats real, Floats imaginary, float weight) {
    const Floats square = real * real + imaginary * imaginary;
    return square == 0 ? square : weight / root(square);
}

// The weighted slope of the distance by `own`.
template <Kind KIND>
Floats simple_slope(Floats own, Floats theirs, float weight) {
    if (KIND == PRODUCT) return -weight * theirs;
    const Floats apart = own - theirs, some = Floats{} + weight;
    return KIND == EUCLIDEAN ? weight * apart : apart > 0 ? some : apart < 0 ? -some : Floats{};
}

// The derivative by a distance, made one by what is summed: a euclidean distance's slope is the difference over it.
template <Kind KIND>
float weight(const float *by, const float *made, int64_t at) {
    if (KIND != EUCLIDEAN) return by[at];
    return made[at] == 0 ? 0 : by[at] / made[at];
}

// Adds LANES numbers of the weighted slopes of `many` pairs of one entity: by the queries and, in opposite, by the entity.
template <Kind KIND, bool WHOLE>
void pair_slopes(const float *entity, const float *const *queries, const float *weights, int64_t many, int64_t half, int64_t d,
                 float *const *by_queries, float *by_entity) {
    const int64_t left = half - d;
    const Floats theirs = take<WHOLE>(entity + d, left);
    Floats sum = take<WHOLE>(by_entity + d, left);
    if (KIND == MODULUS) {
        const Floats their_imaginary = take<WHOLE>(entity + half + d, left);
        Floats imaginary_sum = take<WHOLE>(by_entity + half + d, left);
        for (int64_t one = 0; one < many; one++) {
            float *into = by_queries[one];
            const Floats real = take<WHOLE>(queries[one] + d, left) - theirs;
            const Floats imaginary = take<WHOLE>(queries[one] + half + d, left) - their_imaginary;
            const Floats share = shared_by(real, imaginary, weights[one]);
            put<WHOLE>(into + d, take<WHOLE>(into + d, left) + share * real, left);
            put<WHOLE>(into + half + d, take<WHOLE>(into + half + d, left) + share * imaginary, left);
            sum -= share * real;
            imaginary_sum -= share * imaginary;
        }
        put<WHOLE>(by_entity + half + d, imaginary_sum, left);
    } else {
        for (int64_t one = 0; one < many; one++) {
            const Floats own = take<WHOLE>(queries[one] + d, left), before = take<WHOLE>(by_queries[one] + d, left);
            const Floats slope = simple_slope<KIND>(own, theirs, weights[one]);
            put<WHOLE>(by_queries[one] + d, before + slope, left);
            sum -= KIND == PRODUCT ? weights[one] * own : slope;
        }
    }
    put<WHOLE>(by_entity + d, sum, left);
}

struct Slopes {
    const float *by, *made;        // [rows, count]: the derivative by each distance, and the distance
    float *by_query;               // [rows, width], to be added to
    float *by_entities;            // [*, width], to be added to
    int64_t first, last;           // numbers of each row to be made, in LANES; of its real half, and the same of the other
};

// Adds the slopes of one entity and the queries of `count` places.
template <Kind KIND, typename Place>
void entity_slopes(const Call &call, const Slopes &out, int64_t entity, int64_t count, Place place) {
    const int64_t half = KIND == MODULUS ? call.width / 2 : call.width;
    const int64_t begin = out.first * LANES, end = out.last * LANES < half ? out.last * LANES : half;
    const float *row = call.entities + entity * call.width, *queries[TOGETHER];
    float *into = out.by_entities + entity * call.width, *by_queries[TOGETHER], weights[TOGETHER];
    for (int64_t start = 0; start < count; start += TOGETHER) {
        const int64_t many = count - start < TOGETHER ? count - start : TOGETHER;
        for (int64_t one = 0; one < many; one++) {
            const int64_t at = place(start + one), from = at / call.count * call.width;
            queries[one] = call.query + from;
            by_queries[one] = out.by_query + from;
            weights[one] = weight<KIND>(out.by, out.made, at);
            prefetch(queries[one] + begin, end - begin);
            prefetch(by_queries[one] + begin, end - begin);
        }
        int64_t d = begin;
        for (; d + LANES <= end; d += LANES) pair_slopes<KIND, true>(row, queries, weights, many, half, d, by_queries, into);
        if (d < end) pair_slopes<KIND, false>(row, queries, weights, many, half, d, by_queries, into);
    }
}

template <Kind KIND>
void slopes_of_own(const Call &call, const Order &order, const Slopes &out) {
    for (int64_t entity = 0; entity < order.many; entity++) {
        const int64_t *places = order.places + order.starts[entity];
        const int64_t count = order.starts[entity + 1] - order.starts[entity];
        entity_slopes<KIND>(call, out, entity, count, [=](int64_t one) { return places[one]; });
    }
}

template <Kind KIND>
void slopes_of_shared(const Call &call, int64_t rows, const Slopes &out) {
    for (int64_t n = 0; n < call.count; n++)
        entity_slopes<KIND>(call, out, call.candidates[n], rows, [&](int64_t row) { return row * call.count + n; });
}

}  // namespace

#define OF_KIND(FUNCTION, ...)                                   \
    switch (kind) {                                              \
        case ABSOLUTE: return FUNCTION<ABSOLUTE>(__VA_ARGS__);   \
        case EUCLIDEAN: return FUNCTION<EUCLIDEAN>(__VA_ARGS__); \
        case MODULUS: return FUNCTION<MODULUS>(__VA_ARGS__);     \
        default: return FUNCTION<PRODUCT>(__VA_ARGS__);          \
    }

// Writes where each entity is a candidate: `places` [total] by entity, those of e from `starts`[e] on; starts is [many + 1].
extern "C" void order(const int64_t *candidates, int64_t total, int64_t many, int64_t *starts, int64_t *places) {
    std::memset(starts, 0, (many + 1) * sizeof(int64_t));
    for (int64_t at = 0; at < total; at++) starts[candidates[at] + 1]++;
    for (int64_t one = 0; one < many; one++) starts[one + 1] += starts[one];
    std::vector<int64_t> next(starts, starts + many);
    for (int64_t at = 0; at < total; at++) places[next[candidates[at]]++] = at;
}

// Candidates of each row's own. Writes the distances [rows, count] to the entities `first` .. `last`.
extern "C" void own_distances(const Call *call, int64_t kind, const Order *order, int64_t first, int64_t last, float *made) {
    OF_KIND(distances_of_own, *call, *order, first, last, made)
}

// Adds the derivatives. Calls that make other numbers of the rows may run at the same time: they share no sums.
extern "C" void own_slopes(const Call *call, int64_t kind, const Order *order, const Slopes *out) {
    OF_KIND(slopes_of_own, *call, *order, *out)
}

// Candidates that all rows share. Writes the distances [rows, count] of the queries `first` .. `last`.
extern "C" void shared_distances(const Call *call, int64_t kind, int64_t first, int64_t last, float *made) {
    OF_KIND(distances_of_shared, *call, first, last, made)
}

// Adds the derivatives, as own_slopes does, for `rows` queries.
extern "C" void shared_slopes(const Call *call, int64_t kind, int64_t rows, const Slopes *out) {
    OF_KIND(slopes_of_shared, *call, rows, *out)
}
