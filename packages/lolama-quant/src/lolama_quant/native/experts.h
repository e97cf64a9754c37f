/* Feed-forward networks that are mixtures of experts, as model/experts.py has them: each token goes through a few of
 * many, which its router scores best, and maybe through one more, which all tokens share.
 *
 * Tokens are sorted by expert, so that an expert is read once, and the others not at all. With weights of float32 and
 * int8 a token has the same result, bit for bit, whatever other tokens there are. */
#ifndef LOLAMA_EXPERTS_H
#define LOLAMA_EXPERTS_H

#include "block_products.h"

/* `networks` are the experts, and the shared one behind them if there is one. */
typedef struct {
    const void *router;      /* (experts, width) */
    const void *shared_gate; /* (1, width): what the shared one is multiplied with, as a logit; NULL without one */
    const FeedForward *networks;
} Mixture;

/* What threads tell each other about a block's tokens. An answer is what a network makes of a token. */
typedef struct {
    int64_t *chosen;  /* (tokens, per_token): experts */
    int64_t *answers; /* (tokens, per_token + 1): where the answers of a token are, the shared network's last */
    int64_t *tokens;  /* of each answer; answers are in the order of networks */
    int64_t *firsts;  /* (networks + 1): the first answer of each network, and how many answers there are */
    int64_t *used;    /* networks that have answers, */
    int64_t *count;   /* and their number */
    float *weights;   /* (tokens, per_token + 1): of the answers of a token */
    float *gate, *up; /* (answers, inner width of its network) */
    float *made;      /* (answers, width) */
} Mixing;

static int64_t network_count(const Model *m) { return m->experts + (m->shared_hidden > 0); }
static int64_t answers_of_token(const Model *m) { return m->per_token + (m->shared_hidden > 0); }
static int64_t inner_width(const Model *m, int64_t network) {
    return network < m->experts ? m->expert_hidden : m->shared_hidden;
}

static int64_t mixing_integers(const Model *m, int64_t tokens) {
    return tokens * (2 * m->per_token + 1 + answers_of_token(m)) + 2 * network_count(m) + 2;
}

/* Bytes of working memory for as many tokens, for all threads together and for each. */
static int64_t mixing_bytes(const Model *m, int64_t tokens) {
    if (!m->experts) return 0;
    const int64_t inner = m->per_token * m->expert_hidden + m->shared_hidden;
    return 8 * mixing_integers(m, tokens) +
           4 * tokens * (m->per_token + 1 + 2 * inner + answers_of_token(m) * m->width);
}
static int64_t own_mixing_bytes(const Model *m, int64_t tokens) {
    return m->experts ? 4 * (tokens * m->width + m->experts) + input_bytes(m, tokens) : 0;
}

static Mixing mixing_in(const Model *m, int64_t tokens, void *memory) {
    const int64_t networks = network_count(m), inner = m->per_token * m->expert_hidden + m->shared_hidden;
    Mixing to;
    to.chosen = (int64_t *)memory;
    to.answers = to.chosen + tokens * m->per_token;
    to.tokens = to.answers + tokens * (m->per_token + 1);
    to.firsts = to.tokens + tokens * answers_of_token(m);
    to.used = to.firsts + networks + 1;
    to.count = to.used + networks;
    to.weights = (float *)((int64_t *)memory + mixing_integers(m, tokens));
    to.gate = to.weights + tokens * (m->per_token + 1);
    to.up = to.gate + tokens * inner;
    to.made = to.up + tokens * inner;
    return to;
}

/* Where the gate, or up, of an answer of a network is. */
static float *inner_at(const Model *m, const Mixing *to, float *of, int64_t network, int64_t answer) {
    const int64_t shared = to->firsts[m->experts], experts = answer < shared ? answer : shared;
    return of + experts * m->expert_hidden + (answer - experts) * inner_width(m, network);
}

/* The experts of a token x, the first of equals, and the weights of their answers. `scores` has room for all. */
static void route(const Model *m, const Mixture *b, const float *x, float *scores, int64_t *chosen, float *weights) {
    const int64_t d = m->width;
    /* One token at a time: sums have an order of their own for it. */
    float_product(m->isa, m->router_dtype, b->router, NULL, x, 1, 0, m->experts, d, scores, m->experts, 0);
    const float best = CHOOSE(m->isa, largest, scores, m->experts, -INFINITY);
    float total = CHOOSE(m->isa, exponentials, scores, m->experts, best), sum = 0;
    for (int64_t i = 0; i < m->per_token; i++) {
        int64_t most = -1;
        for (int64_t e = 0; e < m->experts; e++)
            /* What was chosen is -1, and what is not a number may be chosen. */
            if (scores[e] != -1 && (most < 0 || scores[e] > scores[most])) most = e;
        chosen[i] = most;
        weights[i] = scores[most];
        sum += scores[most];
        scores[most] = -1;
    }
    if (m->normalize) total = sum;
    for (int64_t i = 0; i < m->per_token; i++) weights[i] /= total;
    if (!b->shared_gate) return;
    float logit;
    float_product(m->isa, m->router_dtype, b->shared_gate, NULL, x, 1, 0, 1, d, &logit, 1, 0);
    weights[m->per_token] = 1.0f / (1.0f + exponential(-logit));
}

/* Give each token's answers their places. */
static void sort_tokens(const Model *m, const Mixing *to, int64_t tokens) {
    const int64_t networks = network_count(m), k = m->per_token;
    memset(to->firsts, 0, (size_t)(networks + 1) * 8);
    for (int64_t i = 0; i < tokens * k; i++) to->firsts[to->chosen[i] + 1]++;
    if (m->shared_hidden) to->firsts[networks] = tokens;
    *to->count = 0;
    for (int64_t e = 0; e < networks; e++) {
        if (to->firsts[e + 1]) to->used[(*to->count)++] = e;
        to->firsts[e + 1] += to->firsts[e];
    }
    /* Each first answer moves on as answers are given out, and ends where the next network begins. */
    for (int64_t i = 0; i < tokens; i++)
        for (int64_t a = 0; a < answers_of_token(m); a++) {
            const int64_t e = a < k ? to->chosen[i * k + a] : m->experts;
            const int64_t answer = to->answers[i * (k + 1) + a] = to->firsts[e]++;
            to->tokens[answer] = i;
        }
    memmove(to->firsts + 1, to->firsts, (size_t)networks * 8);
    to->firsts[0] = 0;
}

/* The tokens of a network, as products take them. */
static Input tokens_of(const Model *m, const Mixing *to, int64_t network, const float *x, float *own, void *memory) {
    const int64_t first = to->firsts[network], count = to->firsts[network + 1] - first, d = m->width;
    for (int64_t i = 0; i < count; i++)
        memcpy(own + i * d, x + to->tokens[first + i] * d, (size_t)d * 4);
    return input_of(m, own, count, d, NULL, NULL, memory, 0);
}

/* Into how many parts the outputs of a network are split: with few networks threads share one. */
static int64_t parts_of(const Mixing *to, int64_t outputs) {
    const int64_t wanted = (4 * thread_count() + *to->count - 1) / *to->count, most = outputs / 64;
    return thread_count() == 1 || most < 2 ? 1 : wanted < most ? wanted : most;
}

/* Add what a mixture makes of its input to the stream x. All threads call it; `own` has own_mixing_bytes(). */
static void mix(const Model *m, const Mixture *b, const Input *input, const Mixing *to, float *own, const float *norm,
                float *x) {
    const int64_t d = m->width, k = m->per_token, tokens = input->rows;
    void *memory = own + tokens * d + m->experts;
#pragma omp for schedule(static)
    for (int64_t i = 0; i < tokens; i++)
        route(m, b, input->x + i * d, own, to->chosen + i * k, to->weights + i * (k + 1));
#pragma omp single
    sort_tokens(m, to, tokens);
    Input of_network = {0};
    int64_t ready = -1; /* the network whose input this thread has at hand */
    const int64_t shared = m->shared_hidden, narrow = shared && shared < m->expert_hidden ? shared : m->expert_hidden;
    const int64_t parts = parts_of(to, narrow), down_parts = parts_of(to, d);
#pragma omp for schedule(dynamic)
    for (int64_t task = 0; task < *to->count * parts; task++) {
        const int64_t e = to->used[task / parts], first = to->firsts[e], width = inner_width(m, e);
        int64_t begin, end;
        share(width, (int)(task % parts), (int)parts, &begin, &end);
        if (e != ready) of_network = tokens_of(m, to, e, input->x, own, memory), ready = e;
        gated_product(m, b->networks + e, &of_network, begin, end, inner_at(m, to, to->gate, e, first),
                      inner_at(m, to, to->up, e, first), width);
    }
    ready = -1;
#pragma omp for schedule(dynamic)
    for (int64_t task = 0; task < *to->count * down_parts; task++) {
        const int64_t e = to->used[task / down_parts], first = to->firsts[e];
        int64_t begin, end;
        share(d, (int)(task % down_parts), (int)down_parts, &begin, &end);
        if (e != ready) {
            const float *gate = inner_at(m, to, to->gate, e, first);
            const int64_t count = to->firsts[e + 1] - first;
            of_network = input_of(m, gate, count, inner_width(m, e), NULL, NULL, memory, 0);
            ready = e;
        }
        part_product(m, &b->networks[e].down, &of_network, begin, end, to->made + first * d, d, 0);
    }
#pragma omp for schedule(static)
    for (int64_t i = 0; i < tokens; i++) {
        memset(own, 0, (size_t)d * 4);
        for (int64_t a = 0; a < answers_of_token(m); a++) {
            const float *answer = to->made + to->answers[i * (k + 1) + a] * d, weight = to->weights[i * (k + 1) + a];
            for (int64_t c = 0; c < d; c++) own[c] += weight * answer[c];
        }
        add_row(m, own, norm, x + i * d);
    }
}

#endif
