// y = x · weightᵀ for x (rows, inputs) and a weight (outputs, inputs) of codes, whose groups of inputs have scales.
//
// Codes are widened in registers: the memory moves four or eight bits a weight, and the scales. One simdgroup of
// LANES lanes computes one output channel of up to ROWS rows. Its lanes read the channel's codes side by side,
// PIECE bytes at a time. GROUP bytes hold the codes of one group, or in their HALVES those of two neighbors, so
// what a lane reads at a time has one scale, or two. A weight is made as protocols/grouped.py says, in float32.
//
// Defined before this text, besides those sizes: SCALAR (float, half or bfloat), CODE and WHOLE (uchar or char),
// SIMDGROUPS in a threadgroup, BLOCK_GROUPS that share a block scale, and PARTS: 2 if there are minimums, else 1.
// Nothing here assumes that a size is a multiple of anything. The tests compile this same text for the host, with
// a shim for the few names it uses.

constant constexpr int PIECE = 8; // which divides every GROUP

// A scale or a minimum of a group: that of its block, and where blocks are larger times its own.
static inline float of_group(
    device const half *block_scale, device const WHOLE *group_scale, long part, int group) {
    const float wide = float(block_scale[part]);
    if (BLOCK_GROUPS == 1) return wide;
    return wide * float(group_scale[part * BLOCK_GROUPS + group % BLOCK_GROUPS]);
}

kernel void grouped_linear(
    device const SCALAR *x [[buffer(0)]],
    device const CODE *weight [[buffer(1)]],
    device const WHOLE *group_scale [[buffer(2)]],
    device const half *block_scale [[buffer(3)]],
    device SCALAR *y [[buffer(4)]],
    device const int *sizes [[buffer(5)]], // rows, inputs, outputs
    uint3 group_id [[threadgroup_position_in_grid]],
    uint3 local [[thread_position_in_threadgroup]]) {
    const int rows = sizes[0], inputs = sizes[1], outputs = sizes[2];
    const int groups = (inputs + GROUP - 1) / GROUP;
    const int blocks = (groups + BLOCK_GROUPS - 1) / BLOCK_GROUPS;
    // Codes of four bits come in chunks of two groups, with zeros behind the last input.
    const int bytes = HALVES == 1 ? inputs : (groups + 1) / 2 * GROUP;
    const int lane = int(local.x);
    // A threadgroup is several simdgroups, one above the other: local.y tells them apart.
    const int channel = int(group_id.x) * SIMDGROUPS + int(local.y);
    const int first_row = int(group_id.y) * ROWS;
    const int some = min(ROWS, rows - first_row);
    // No early return: every lane of a simdgroup has to come to simd_sum.
    const bool active = channel < outputs;

    float sums[ROWS];
    for (int row = 0; row < ROWS; row++) sums[row] = 0;
    if (active) {
        device const CODE *codes = weight + long(channel) * bytes;
        device const SCALAR *first = x + long(first_row) * inputs;
        for (int start = lane * PIECE; start < bytes; start += LANES * PIECE) {
            for (int side = 0; side < HALVES; side++) {
                const int group = start / GROUP * HALVES + side;
                const int begin = group * GROUP + start % GROUP; // of the inputs
                const int count = min(PIECE, inputs - begin);
                if (count <= 0) continue;
                const long part = (long(channel) * blocks + group / BLOCK_GROUPS) * PARTS;
                const float scale = of_group(block_scale, group_scale, part, group);
                const float minimum = PARTS == 1 ? 0 : of_group(block_scale, group_scale, part + 1, group);
                for (int offset = 0; offset < count; offset++) {
                    const int stored = int(codes[start + offset]);
                    const int code = HALVES == 1 ? stored : (stored >> (4 * side)) & 15;
                    const float w = scale * float(code) - minimum;
                    for (int row = 0; row < some; row++)
                        sums[row] += w * float(first[long(row) * inputs + begin + offset]);
                }
            }
        }
    }
    for (int row = 0; row < some; row++) {
        const float sum = simd_sum(sums[row]);
        if (lane == 0 && active) y[long(first_row + row) * outputs + channel] = SCALAR(sum);
    }
}
