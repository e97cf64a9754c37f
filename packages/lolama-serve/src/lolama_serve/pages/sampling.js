// What temperature, top-k, top-p and min-p make of a distribution: the order and meaning of lolama_core.sampling_steps.

// Logits, the best first → the probability of each.
export function sampled(logits, { temperature, topK, topP, minP }) {
  let shares = softmax(logits.map((one) => one / temperature));
  if (topK > 0) shares = renormalized(shares.map((share, place) => (place < topK ? share : 0)));
  if (topP < 1) {
    let before = 0;
    shares = renormalized(
      shares.map((share) => {
        const stays = before < topP;
        before += share;
        return stays ? share : 0;
      }),
    );
  }
  if (minP > 0) shares = renormalized(shares.map((share) => (share >= minP * shares[0] ? share : 0)));
  return shares;
}

function softmax(scores) {
  const best = Math.max(...scores);
  const powers = scores.map((one) => Math.exp(one - best));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((one) => one / sum);
}

function renormalized(shares) {
  const sum = shares.reduce((a, b) => a + b, 0);
  return shares.map((one) => one / sum);
}
