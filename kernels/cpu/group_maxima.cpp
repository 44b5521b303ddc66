// The maxima of groups of memories' scores, for group_search.py: a matrix product whose result never leaves registers.
//
// Plain C++ with vector extensions that GCC and Clang share: what the machine has (AVX2, AVX-512, NEON) is the compiler's
// affair. 6 queries x 16 memories fill the registers of AVX2; AVX-512 has twice as many, twice as wide, and 16 x 16 are the
// fastest there. Blocks of memories are packed, in float32, for the second cache.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

namespace {

#ifdef __AVX512F__
constexpr int64_t QUERIES = 16, LANES = 16;
#else
constexpr int64_t QUERIES = 6, LANES = 8;
#endif
constexpr int64_t MEMORIES = 16, VECTORS = MEMORIES / LANES;
constexpr float LOWEST = -std::numeric_limits<float>::infinity();

typedef float Floats __attribute__((vector_size(4 * LANES)));

Floats load(const float *from) {
    Floats made;
    std::memcpy(&made, from, sizeof made);
    return made;
}

}  // namespace

// What is null is not there. A memory j of the span is row `members[j]` of the bank, or row j.
struct Bank {
    const float *single;      // keys [M, depth] in float32, or
    const int8_t *codes;      // keys [M, depth] to be multiplied with
    const float *scales;      // [M]
    const float *bias;        // [M]
    const uint8_t *kept;      // [M]
    const int64_t *owner;     // [M]
    const int64_t *class_;    // [M]
    const int64_t *members;   // of the span
    int64_t depth;
    int64_t unit;             // whether keys are divided by their length
    float squares;            // times its squared length is added to a memory's scores
    float smallest;           // least length to divide by
};

struct Queries {
    const float *rows;        // [ceil(count / QUERIES), depth, QUERIES], zeros beyond count
    const int64_t *owner;     // [count]
    const int64_t *class_;    // [count]
    int64_t count;
};

namespace {

struct Block {
    std::vector<float> keys;      // [group, depth, 16]
    std::vector<float> offset;    // [group * 16]
    std::vector<int64_t> owner, class_;
};

float product(const float *left, const float *right, int64_t depth) {
    float part[LANES] = {}, sum = 0;
    int64_t d = 0;
    for (; d + LANES <= depth; d += LANES)
        for (int64_t lane = 0; lane < LANES; lane++) part[lane] += left[d + lane] * right[d + lane];
    for (; d < depth; d++) sum += left[d] * right[d];
    for (int64_t lane = 0; lane < LANES; lane++) sum += part[lane];
    return sum;
}

// Reads a key as it is multiplied, and what is added to its scores; returns its squared length, or 0 if nobody wants it.
float read(const Bank &bank, int64_t name, float *row, float &offset, bool wanted) {
    const int64_t depth = bank.depth;
    if (bank.codes)
        for (int64_t d = 0; d < depth; d++) row[d] = bank.codes[name * depth + d] * bank.scales[name];
    else
        std::memcpy(row, bank.single + name * depth, depth * sizeof(float));
    const float square = wanted || bank.unit || bank.squares != 0 ? product(row, row, depth) : 0;
    if (bank.unit) {
        const float length = std::sqrt(square);
        const float factor = length > bank.smallest ? length : bank.smallest;
        for (int64_t d = 0; d < depth; d++) row[d] /= factor;
    }
    offset = bank.squares != 0 ? square * bank.squares : 0;
    if (bank.bias) offset += bank.bias[name];
    if (bank.kept && !bank.kept[name]) offset = LOWEST;
    return square;
}

// Packs memories `from` .. `to` of the span, and what is beyond as memories that nobody finds; returns the longest square.
float pack(const Bank &bank, int64_t from, int64_t to, int64_t group, Block &block) {
    const int64_t depth = bank.depth;
    std::vector<float> row(depth);
    float longest = 0;
    for (int64_t at = 0; at < (int64_t)block.offset.size(); at++) {
        // Neighbours of a group lie in one lane of all panels.
        const int64_t panel = at % group, lane = at / group, place = panel * MEMORIES + lane;
        float *into = block.keys.data() + panel * depth * MEMORIES + lane;
        if (from + at >= to) {
            for (int64_t d = 0; d < depth; d++) into[d * MEMORIES] = 0;
            block.offset[place] = LOWEST;
            continue;
        }
        const int64_t name = bank.members ? bank.members[from + at] : from + at;
        const float square = read(bank, name, row.data(), block.offset[place], true);
        if (square > longest && square <= std::numeric_limits<float>::max()) longest = square;
        for (int64_t d = 0; d < depth; d++) into[d * MEMORIES] = row[d];
        if (bank.owner) block.owner[place] = bank.owner[name];
        if (bank.class_) block.class_[place] = bank.class_[name];
    }
    return longest;
}

// Scores below -inf where an identifier is, or is not, that of the query.
template <bool SAME>
void forbid(float *scores, const int64_t *memories, int64_t query) {
    for (int64_t lane = 0; lane < MEMORIES; lane++)
        scores[lane] = (memories[lane] == query) == SAME ? LOWEST : scores[lane];
}

void multiply(const Queries &asked, int64_t tile, const Block &block, int64_t group, int64_t depth, bool masked,
              float *maxima, int64_t stride) {
    const float *queries = asked.rows + tile * depth * QUERIES;
    const int64_t rows = asked.count - tile * QUERIES < QUERIES ? asked.count - tile * QUERIES : QUERIES;
    Floats top[QUERIES][VECTORS];
    for (auto &row : top)
        for (auto &some : row) some = Floats{} + LOWEST;
    for (int64_t panel = 0; panel < group; panel++) {
        Floats sum[QUERIES][VECTORS] = {};
        const float *keys = block.keys.data() + panel * depth * MEMORIES;
        for (int64_t d = 0; d < depth; d++) {
            Floats key[VECTORS];
            for (int64_t some = 0; some < VECTORS; some++) key[some] = load(keys + d * MEMORIES + some * LANES);
            for (int64_t row = 0; row < QUERIES; row++) {
                const float query = queries[d * QUERIES + row];
                for (int64_t some = 0; some < VECTORS; some++) sum[row][some] += query * key[some];
            }
        }
        for (int64_t row = 0; row < rows; row++) {
            for (int64_t some = 0; some < VECTORS; some++)
                sum[row][some] += load(block.offset.data() + panel * MEMORIES + some * LANES);
            if (masked) {
                float scores[MEMORIES];
                std::memcpy(scores, sum[row], sizeof scores);
                const int64_t query = tile * QUERIES + row;
                if (asked.owner) forbid<true>(scores, block.owner.data() + panel * MEMORIES, asked.owner[query]);
                if (asked.class_) forbid<false>(scores, block.class_.data() + panel * MEMORIES, asked.class_[query]);
                std::memcpy(sum[row], scores, sizeof scores);
            }
            for (int64_t some = 0; some < VECTORS; some++) {
                // What is no number is looked at again, exactly.
                const Floats score = sum[row][some] == sum[row][some] ? sum[row][some] : Floats{} - LOWEST;
                top[row][some] = score > top[row][some] ? score : top[row][some];
            }
        }
    }
    for (int64_t row = 0; row < rows; row++)
        std::memcpy(maxima + (tile * QUERIES + row) * stride, top[row], sizeof top[row]);
}

}  // namespace

// How many queries lie beside each other in `Queries.rows`.
extern "C" int64_t queries_together() { return QUERIES; }

// Writes maxima [count, stride] of memories `from` .. `to` of the span, 16 groups for every 16 * `group` memories; a group is
// `group` neighbours. `from` is a multiple of 16 * `group`. Returns the length of the longest key.
extern "C" float group_maxima(const Bank *bank, const Queries *asked, int64_t from, int64_t to, int64_t group, float *maxima,
                              int64_t stride) {
    Block block;
    const int64_t size = group * MEMORIES;
    block.keys.resize(size * bank->depth);
    block.offset.resize(size);
    if (bank->owner) block.owner.assign(size, 0);
    if (bank->class_) block.class_.assign(size, 0);
    const bool masked = asked->owner || asked->class_;
    float longest = 0;
    for (int64_t start = from; start < to; start += size) {
        const float square = pack(*bank, start, to, group, block);
        longest = square > longest ? square : longest;
        for (int64_t tile = 0; tile * QUERIES < asked->count; tile++)
            multiply(*asked, tile, block, group, bank->depth, masked, maxima + start / group, stride);
    }
    return std::sqrt(longest);
}

// Writes the scores [count, many] of the memories `at`, -inf where that is -1, for the queries `from` .. `to`, which lie in
// `rows` [count, depth] here. `bank->members` is not looked at.
extern "C" void member_scores(const Bank *bank, const Queries *asked, const float *rows, int64_t from, int64_t to,
                              const int64_t *at, int64_t many, float *scores) {
    std::vector<float> row(bank->depth);
    for (int64_t query = from; query < to; query++)
        for (int64_t one = query * many; one < (query + 1) * many; one++) {
            const int64_t name = at[one];
            scores[one] = LOWEST;
            if (name < 0) continue;
            if (asked->owner && asked->owner[query] == bank->owner[name]) continue;
            if (asked->class_ && asked->class_[query] != bank->class_[name]) continue;
            float offset;
            read(*bank, name, row.data(), offset, false);
            const float score = product(rows + query * bank->depth, row.data(), bank->depth) + offset;
            scores[one] = score == score ? score : -LOWEST;
        }
}
