#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "crypto/aes_block.h"
#include "crypto/counter.h"
#include "crypto/data_key.h"

// AES-CTR over a range of memory, shared between many threads that each do the same with another number: the body of the GPU
// kernel. It is here and not in csrc/cuda so that the CPU's tests run all of its arithmetic.
//
// The memory is cut where its addresses are multiples of 16, not where blocks of AES begin: such a unit is read and written in
// one access, and only the first and the last one can be partly outside of the range and are done byte by byte. Where the two
// cuts differ, a unit needs two blocks of keystream, which costs twice the encryption but keeps the accesses wide; reading bytes
// one at a time would cost more.
namespace veturbo::crypto {

// The counter as what is encrypted: big-endian.
VETURBO_HOST_DEVICE inline Block counter_block(Counter counter) {
  const auto reversed = [](uint64_t word) { return permute_bytes(static_cast<uint32_t>(word), 0, 0x0123U); };
  return {{reversed(counter.high >> 32U), reversed(counter.high), reversed(counter.low >> 32U), reversed(counter.low)}};
}

// Bytes `skip` to `skip` + 15 of the 32 bytes of `first` and `second`; `skip` is 0 to 15.
VETURBO_HOST_DEVICE inline Block bytes_across(const Block& first, const Block& second, unsigned skip) {
  const auto half = [](uint32_t low, uint32_t high) { return low | (uint64_t{high} << 32U); };
  uint64_t a = half(first.words[0], first.words[1]);
  uint64_t b = half(first.words[2], first.words[3]);
  uint64_t c = half(second.words[0], second.words[1]);
  if (skip >= 8) {
    a = b;
    b = c;
    c = half(second.words[2], second.words[3]);
  }
  const unsigned bits = 8 * (skip % 8);
  if (bits != 0) {
    a = (a >> bits) | (b << (64U - bits));
    b = (b >> bits) | (c << (64U - bits));
  }
  return {{static_cast<uint32_t>(a), static_cast<uint32_t>(a >> 32U), static_cast<uint32_t>(b), static_cast<uint32_t>(b >> 32U)}};
}

// Where the range lies, in units of 16 bytes from an address that is a multiple of 16.
struct CtrRange {
  unsigned char* units;
  uint64_t begin;  // the range is the bytes from units + begin to units + end; begin is below 16
  uint64_t end;
  Counter counter;  // of the block that byte 0 of `units` belongs to
  unsigned skip;    // how many bytes of that block lie before `units`

  VETURBO_HOST_DEVICE uint64_t num_units() const { return end / kBlockBytes + (end % kBlockBytes != 0 ? 1U : 0U); }
};

// Byte 0 of `data` is byte `stream_offset` of the stream whose first block has the counter `iv`. The stream must not end before
// the data does: `stream_offset` + `size` fits into 64 bits.
inline CtrRange make_ctr_range(void* data, uint64_t size, uint64_t stream_offset, const Iv& iv) {
  const uint64_t lead = reinterpret_cast<uintptr_t>(data) % kBlockBytes;
  const uint64_t in_block = stream_offset % kBlockBytes;
  Counter counter = counter_of(iv) + stream_offset / kBlockBytes;
  if (in_block < lead) {
    // The unit begins in the block before, which may be one before the stream: none of its bytes are used then.
    counter = counter - 1;
  }
  return {static_cast<unsigned char*>(data) - lead, lead, lead + size, counter,
          static_cast<unsigned>((in_block + kBlockBytes - lead) % kBlockBytes)};
}

// Leaves what is outside of the range as it is.
VETURBO_HOST_DEVICE inline void xor_unit(const CtrRange& range, uint64_t number, const Block& stream) {
  if (number >= range.num_units()) {
    return;
  }
  const uint64_t from = number * kBlockBytes;
  if (from >= range.begin && range.end - from >= kBlockBytes) {
    auto* unit = static_cast<unsigned char*>(__builtin_assume_aligned(range.units + from, kBlockBytes));
    Block block;
    std::memcpy(&block, unit, kBlockBytes);
    for (int c = 0; c < 4; ++c) {
      block.words[c] ^= stream.words[c];
    }
    std::memcpy(unit, &block, kBlockBytes);
    return;
  }
  for (unsigned j = 0; j < kBlockBytes; ++j) {
    if (from + j >= range.begin && from + j < range.end) {
      range.units[from + j] ^= static_cast<unsigned char>(stream.words[j / 4] >> (8 * (j % 4)));
    }
  }
}

// What one of a group of threads does: XORs the keystream onto unit `first` + `thread` of the range and each `stride`-th after
// it. Neighbouring threads touch neighbouring memory. Once every thread of every group has done that, with `stride` threads in
// all, the range is encrypted, or decrypted.
//
// `first` and `thread` are apart, and a thread encrypts even beyond the end of the range, so that the compiler sees a loop that
// all threads of a warp leave together. Only then does it keep the address of the tables in a register of the warp; otherwise it
// adds it anew for each lookup.
template <typename Tables>
VETURBO_HOST_DEVICE inline void xor_keystream(const CtrRange& range, const RoundKeys& keys, const Tables& tables, uint64_t first,
                                              uint64_t stride, unsigned thread) {
  const uint64_t num_units = range.num_units();
  for (uint64_t group = first; group < num_units; group += stride) {
    const uint64_t i = group + thread;
    const Counter counter = range.counter + i;
    Block stream = encrypt_block(tables, keys, counter_block(counter));
    if (range.skip != 0) {
      stream = bytes_across(stream, encrypt_block(tables, keys, counter_block(counter + 1)), range.skip);
    }
    xor_unit(range, i, stream);
  }
}

}  // namespace veturbo::crypto
