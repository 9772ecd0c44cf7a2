#pragma once

#include <cstdint>

#include "crypto/aes_block.h"

// Two ways to keep the tables that encrypt_block() looks up.
namespace veturbo::crypto {

// One copy, 1 KiB: for a CPU, where this is a reference only. How long a lookup takes depends on the cache, and so on the key.
class PlainTables {
 public:
  uint32_t row0(uint32_t word, unsigned byte) const { return kTable.values[(word >> (8 * byte)) & 0xFFU]; }
  uint32_t row1(uint32_t word, unsigned byte) const { return rotate_left(row0(word, byte), 8); }

 private:
  static constexpr ColumnTable kTable = make_column_table();
};

// A copy for each of the 32 banks of a GPU's shared memory: lane n of a warp reads nothing but bank n. A warp's lookups then
// never collide, whatever it looks up, and how long they take says nothing about the key.
//
// The entry of value v is the 256 bytes from 256 * v on: 32 copies of row 0's column, then 32 of row 1's. So an address is one
// byte permutation away from the state: the byte that is looked up above four times the lane, and the row is a constant offset.
// One table of 32 KiB would need a shift and a mask for that and a rotation for each lookup of row 1; four tables of 128 KiB
// would save the rotation by 16 bits, but fit only into the GPUs of data centres.
class BankedTables {
 public:
  static constexpr unsigned kBanks = 32;
  static constexpr unsigned kBytes = 256 * 2 * kBanks * sizeof(uint32_t);

  // `memory` is kBytes long and was filled with fill_entry() for each value.
  VETURBO_HOST_DEVICE BankedTables(const uint32_t* memory, unsigned lane)
      : memory_(reinterpret_cast<const unsigned char*>(memory)), lane_offset_(lane * static_cast<unsigned>(sizeof(uint32_t))) {}

  // What `lane` contributes to the entry of `value`, whose column in row 0 is `column`.
  VETURBO_HOST_DEVICE static void fill_entry(uint32_t* memory, unsigned value, uint32_t column, unsigned lane) {
    uint32_t* entry = memory + value * 2 * kBanks;
    entry[lane] = column;
    entry[kBanks + lane] = rotate_left(column, 8);
  }

  VETURBO_HOST_DEVICE uint32_t row0(uint32_t word, unsigned byte) const { return load(entry_offset(word, byte)); }
  VETURBO_HOST_DEVICE uint32_t row1(uint32_t word, unsigned byte) const {
    return load(entry_offset(word, byte) + kBanks * static_cast<unsigned>(sizeof(uint32_t)));
  }

 private:
  // Digit 4 is four times the lane, digits 5 are zero: a lane's offset fits into a byte.
  VETURBO_HOST_DEVICE uint32_t entry_offset(uint32_t word, unsigned byte) const {
    return permute_bytes(word, lane_offset_, 0x5504U | (byte << 4U));
  }
  VETURBO_HOST_DEVICE uint32_t load(uint32_t offset) const { return *reinterpret_cast<const uint32_t*>(memory_ + offset); }

  const unsigned char* memory_;
  uint32_t lane_offset_;
};

}  // namespace veturbo::crypto
