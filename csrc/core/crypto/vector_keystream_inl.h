// The keystream over vectors of AES blocks, for each width that includes this. Before it, a file defines VETURBO_VECTOR_TARGET,
// the attribute that lets a function use the width's instructions: as flags for the whole file they would also go into what it
// takes from the standard library's headers, and the linker might choose that copy for every other file.
//
// Eight vectors are in flight: an AES round takes several cycles, and one or two begin in each.
//
// 256 counters in turn differ in their last byte alone, and what a byte adds to the outcome of the first round depends on the key
// only: it is looked up, and the other bytes' first round is computed once for all 256. Nothing secret chooses what is looked up.

#include <algorithm>
#include <cstring>

#include "crypto/counter.h"
#include "crypto/expanded_key.h"
#include "crypto/keystream.h"

namespace veturbo::crypto {

namespace {

constexpr size_t kVectorsInFlight = 8;
constexpr size_t kBlocksPerRun = 256;  // those that a counter's last byte tells apart

// `Vector` names the type and the instructions of one width.
template <typename Vector>
class VectorKeystream final : public Keystream {
  using Register = typename Vector::Register;
  static constexpr size_t kBlocks = Vector::kBlocks;
  static constexpr size_t kVectorBytes = kBlocks * kBlockBytes;

 public:
  explicit VectorKeystream(const DataKey& key) : first_(counter_of(key.iv)) {
    const ExpandedKey expanded(key.key);
    const RoundKeys& keys = expanded.get();
    rounds_ = keys.rounds;
    for (int round = 0; round <= rounds_; ++round) {
      for (size_t block = 0; block < kBlocks; ++block) {
        std::memcpy(round_keys_ + static_cast<size_t>(round) * kVectorBytes + block * kBlockBytes,
                    keys.bytes + static_cast<size_t>(round) * kBlockBytes, kBlockBytes);
      }
    }
    compute_last_bytes();
  }

  void apply(uint64_t offset, std::span<const std::byte> in, std::byte* out) const override {
    Counter counter = first_ + offset / kBlockBytes;
    // Vectors begin where the counter is a multiple of their blocks: so no vector has a part in two runs.
    const size_t skipped_blocks = counter.low % kBlocks;
    counter = counter - skipped_blocks;
    if (const size_t skipped = skipped_blocks * kBlockBytes + offset % kBlockBytes; skipped > 0) {
      const size_t size = std::min(kVectorBytes - skipped, in.size());
      apply_within_vector(counter, skipped, in.first(size), out);
      in = in.subspan(size);
      out += size;
      counter = counter + kBlocks;
    }
    const size_t vectors = in.size() / kVectorBytes;
    apply_whole_vectors(counter, in.data(), out, vectors);
    const size_t done = vectors * kVectorBytes;
    apply_within_vector(counter + vectors * kBlocks, 0, in.subspan(done), out + done);
  }

 private:
  void apply_within_vector(const Counter& counter, size_t skipped, std::span<const std::byte> in, std::byte* out) const {
    if (in.empty()) {
      return;
    }
    alignas(kVectorBytes) std::byte stream[kVectorBytes] = {};
    apply_whole_vectors(counter, stream, stream, 1);
    for (size_t i = 0; i < in.size(); ++i) {
      out[i] = in[i] ^ stream[skipped + i];
    }
  }

  void apply_whole_vectors(const Counter& counter, const std::byte* in, std::byte* out, size_t vectors) const {
    rounds_ == 10 ? apply_rounds<10>(counter, in, out, vectors) : apply_rounds<14>(counter, in, out, vectors);
  }

  template <int kRounds>
  VETURBO_VECTOR_TARGET void apply_rounds(Counter counter, const std::byte* in, std::byte* out, size_t vectors) const {
    while (vectors > 0) {
      const size_t last_byte = counter.low % kBlocksPerRun;
      const size_t in_run = std::min(vectors, (kBlocksPerRun - last_byte) / kBlocks);
      const Register others = first_round(counter - last_byte, load_key(1));
      const std::byte* last_bytes = last_bytes_ + last_byte * kBlockBytes;
      size_t left = in_run;
      for (; left >= kVectorsInFlight; left -= kVectorsInFlight) {
        apply_group<kRounds, kVectorsInFlight>(others, last_bytes, in, out);
      }
      for (; left > 0; --left) {
        apply_group<kRounds, 1>(others, last_bytes, in, out);
      }
      vectors -= in_run;
      counter = counter + in_run * kBlocks;
    }
  }

  template <int kRounds, size_t kCount>
  VETURBO_VECTOR_TARGET __attribute__((always_inline)) void apply_group(const Register& others, const std::byte*& last_bytes,
                                                                        const std::byte*& in, std::byte*& out) const {
    Register state[kCount];
#pragma GCC unroll 8
    for (size_t i = 0; i < kCount; ++i) {
      state[i] = Vector::exclusive_or(others, Vector::load(last_bytes + i * kVectorBytes));
    }
#pragma GCC unroll 14
    for (size_t round = 2; round < kRounds; ++round) {
      const Register key = load_key(round);
#pragma GCC unroll 8
      for (size_t i = 0; i < kCount; ++i) {
        state[i] = Vector::encrypt_round(state[i], key);
      }
    }
    const Register last_key = load_key(kRounds);
#pragma GCC unroll 8
    for (size_t i = 0; i < kCount; ++i) {
      const Register stream = Vector::encrypt_last_round(state[i], last_key);
      Vector::store(out + i * kVectorBytes, Vector::exclusive_or(stream, Vector::load(in + i * kVectorBytes)));
    }
    last_bytes += kCount * kVectorBytes;
    in += kCount * kVectorBytes;
    out += kCount * kVectorBytes;
  }

  // Of one counter, in every block.
  VETURBO_VECTOR_TARGET __attribute__((always_inline)) Register first_round(const Counter& counter, const Register& key) const {
    const Register block = Vector::repeat(__builtin_bswap64(counter.high), __builtin_bswap64(counter.low));
    return Vector::encrypt_round(Vector::exclusive_or(block, load_key(0)), key);
  }

  VETURBO_VECTOR_TARGET void compute_last_bytes() {
    const Register no_key = Vector::repeat(0, 0);
    const Register without = first_round({0, 0}, no_key);
    for (size_t last_byte = 0; last_byte < kBlocksPerRun; ++last_byte) {
      // Of the vector's equal blocks the first stays: the next ones are written over the others.
      const Register added = Vector::exclusive_or(first_round({0, last_byte}, no_key), without);
      Vector::store(last_bytes_ + last_byte * kBlockBytes, added);
    }
  }

  VETURBO_VECTOR_TARGET __attribute__((always_inline)) Register load_key(size_t round) const {
    return Vector::load(round_keys_ + round * kVectorBytes);
  }

  alignas(kVectorBytes) std::byte round_keys_[static_cast<size_t>(kMaxRounds + 1) * kVectorBytes];
  // What each last byte of a counter adds, by XOR, to the outcome of the first round; and room for the last one's vector.
  alignas(kVectorBytes) std::byte last_bytes_[(kBlocksPerRun - 1) * kBlockBytes + kVectorBytes];
  int rounds_;
  Counter first_;
};

}  // namespace

}  // namespace veturbo::crypto
