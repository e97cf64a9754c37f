// y = (x · weightᵀ) · scale for x (rows, inputs), weight (outputs, inputs) int8, scale (outputs) float.
//
// Weights are widened in registers: the memory moves eight bits a weight. One simdgroup of LANES lanes computes
// one output channel of up to ROWS rows. Its lanes read the channel's weights side by side, four at a time.
//
// These and SCALAR (float, half or bfloat) are defined before this text, and SIMDGROUPS in a threadgroup. Nothing
// here assumes that a size is a multiple of anything. The tests compile this same text for the host, with a shim
// for the few names it uses.

kernel void int8_linear(
    device const SCALAR *x [[buffer(0)]],
    device const char *weight [[buffer(1)]],
    device const float *scale [[buffer(2)]],
    device SCALAR *y [[buffer(3)]],
    device const int *sizes [[buffer(4)]], // rows, inputs, outputs
    uint3 group [[threadgroup_position_in_grid]],
    uint3 local [[thread_position_in_threadgroup]]) {
    const int rows = sizes[0], inputs = sizes[1], outputs = sizes[2];
    const int lane = int(local.x);
    // A threadgroup is several simdgroups, one above the other: local.y tells them apart.
    const int channel = int(group.x) * SIMDGROUPS + int(local.y);
    const int first_row = int(group.y) * ROWS;
    const int some = min(ROWS, rows - first_row);
    // No early return: every lane of a simdgroup has to come to simd_sum.
    const bool active = channel < outputs;

    float sums[ROWS];
    for (int row = 0; row < ROWS; row++) sums[row] = 0;
    if (active) {
        device const char *weights = weight + long(channel) * inputs;
        device const SCALAR *first = x + long(first_row) * inputs;
        for (int start = lane * 4; start < inputs; start += LANES * 4) {
            const int count = min(4, inputs - start);
            for (int offset = 0; offset < count; offset++) {
                const int column = start + offset;
                const float w = float(weights[column]);
                for (int row = 0; row < some; row++)
                    sums[row] += w * float(first[long(row) * inputs + column]);
            }
        }
    }
    for (int row = 0; row < some; row++) {
        const float sum = simd_sum(sums[row]);
        if (lane == 0 && active)
            y[long(first_row + row) * outputs + channel] = SCALAR(sum * scale[channel]);
    }
}
