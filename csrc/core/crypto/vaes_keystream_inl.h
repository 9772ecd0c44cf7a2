// The keystream over vectors of AES blocks, for each width that includes this. Before it, a file defines VETURBO_VAES_TARGET, the
// attribute that lets a function use the width's instructions: as flags for the whole file they would also go into what it takes
// from the standard library's headers, and the linker might choose that copy for every other file.
//
// Eight vectors are in flight: an AES round takes several cycles, and one or two begin in each.

#include <algorithm>
#include <cstring>

#include "crypto/counter.h"
#include "crypto/expanded_key.h"
#include "crypto/keystream.h"

namespace veturbo::crypto {

namespace {

constexpr size_t kVectorsInFlight = 8;

// `Vector` names the type and the instructions of one width.
template <typename Vector>
class VaesKeystream final : public Keystream {
  using Register = typename Vector::Register;
  static constexpr size_t kBlocks = Vector::kBlocks;
  static constexpr size_t kVectorBytes = kBlocks * kBlockBytes;

 public:
  explicit VaesKeystream(const DataKey& key) : first_(counter_of(key.iv)) {
    const ExpandedKey expanded(key.key);
    const RoundKeys& keys = expanded.get();
    rounds_ = keys.rounds;
    for (int round = 0; round <= rounds_; ++round) {
      for (size_t block = 0; block < kBlocks; ++block) {
        std::memcpy(round_keys_ + static_cast<size_t>(round) * kVectorBytes + block * kBlockBytes,
                    keys.bytes + static_cast<size_t>(round) * kBlockBytes, kBlockBytes);
      }
    }
  }

  void apply(uint64_t offset, std::span<const std::byte> in, std::byte* out) const override {
    uint64_t block = offset / kBlockBytes;
    size_t skipped = offset % kBlockBytes;
    while (!in.empty()) {
      const Counter counter = first_ + block;
      // The lanes count in 64 bits. Where those wrap around, which they do once in a stream at most, a vector has to end.
      const uint64_t until_wrap = counter.low == 0 ? UINT64_MAX : -counter.low;
      const size_t vectors = std::min<uint64_t>(in.size() / kBlockBytes, until_wrap) / kBlocks;
      size_t done = 0;
      if (skipped == 0 && vectors > 0) {
        rounds_ == 10 ? apply_vectors<10>(counter, in.data(), out, vectors) : apply_vectors<14>(counter, in.data(), out, vectors);
        done = vectors * kVectorBytes;
        block += vectors * kBlocks;
      } else {
        done = apply_in_block(counter, skipped, in, out);
        skipped = 0;
        ++block;
      }
      in = in.subspan(done);
      out += done;
    }
  }

 private:
  // The part of one block from byte `skipped` on, as far as there is input.
  size_t apply_in_block(const Counter& counter, size_t skipped, std::span<const std::byte> in, std::byte* out) const {
    alignas(kVectorBytes) std::byte stream[kVectorBytes] = {};
    rounds_ == 10 ? apply_vectors<10>(counter, stream, stream, 1) : apply_vectors<14>(counter, stream, stream, 1);
    const size_t size = std::min(kBlockBytes - skipped, in.size());
    for (size_t i = 0; i < size; ++i) {
      out[i] = in[i] ^ stream[skipped + i];
    }
    return size;
  }

  template <int kRounds>
  VETURBO_VAES_TARGET void apply_vectors(const Counter& counter, const std::byte* in, std::byte* out, size_t vectors) const {
    Register next = Vector::counters(counter.high, counter.low);
    for (; vectors >= kVectorsInFlight; vectors -= kVectorsInFlight) {
      apply_group<kRounds, kVectorsInFlight>(next, in, out);
      in += kVectorsInFlight * kVectorBytes;
      out += kVectorsInFlight * kVectorBytes;
    }
    for (; vectors > 0; --vectors) {
      apply_group<kRounds, 1>(next, in, out);
      in += kVectorBytes;
      out += kVectorBytes;
    }
  }

  template <int kRounds, size_t kCount>
  VETURBO_VAES_TARGET __attribute__((always_inline)) void apply_group(Register& next, const std::byte* in, std::byte* out) const {
    Register state[kCount];
    const Register first_key = Vector::load(round_keys_);
#pragma GCC unroll 8
    for (size_t i = 0; i < kCount; ++i) {
      state[i] = Vector::exclusive_or(Vector::big_endian(next), first_key);
      next = Vector::plus_one_vector(next);
    }
#pragma GCC unroll 14
    for (size_t round = 1; round < kRounds; ++round) {
      const Register key = Vector::load(round_keys_ + round * kVectorBytes);
#pragma GCC unroll 8
      for (size_t i = 0; i < kCount; ++i) {
        state[i] = Vector::encrypt_round(state[i], key);
      }
    }
    const Register last_key = Vector::load(round_keys_ + kRounds * kVectorBytes);
#pragma GCC unroll 8
    for (size_t i = 0; i < kCount; ++i) {
      const Register stream = Vector::encrypt_last_round(state[i], last_key);
      Vector::store(out + i * kVectorBytes, Vector::exclusive_or(stream, Vector::load(in + i * kVectorBytes)));
    }
  }

  alignas(kVectorBytes) std::byte round_keys_[static_cast<size_t>(kMaxRounds + 1) * kVectorBytes];
  int rounds_;
  Counter first_;
};

}  // namespace

}  // namespace veturbo::crypto
