#include "storage/sfcs/sfcs_writable_file.h"

#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <iomanip>
#include <random>
#include <sstream>
#include <utility>

#include "base/concat.h"
#include "base/error.h"
#include "storage/sfcs/file_info.h"
#include "storage/sfcs/settings.h"

namespace veturbo::storage::sfcs {

namespace {

constexpr uint64_t kMaxChunkBytes = uint64_t{8} << 20;
constexpr uint64_t kMaxWriters = 16;
// Below this a second writer would not be worth the calls that join two parts.
constexpr uint64_t kMinBlocksOfParts = 4;

struct Split {
  std::string folder;
  std::string name;
};

Split split(const std::string& path) {
  const size_t slash = path.rfind('/');
  return {slash == 0 ? "/" : path.substr(0, slash), path.substr(slash + 1)};
}

std::string join(const std::string& folder, const std::string& name) {
  return folder == "/" ? folder + name : concat(folder, "/", name);
}

// Of what is being written for a path, in whatever folder: always the same, so that the next save finds it.
std::string stage_name(const std::string& path) {
  constexpr size_t kMaxStem = 180;  // leaves room for the rest within the 255 bytes of a name
  constexpr int kDigestBytes = 8;
  std::array<unsigned char, 32> digest = {};
  EVP_Digest(path.data(), path.size(), digest.data(), nullptr, EVP_sha256(), nullptr);
  std::ostringstream name;
  name << "." << split(path).name.substr(0, kMaxStem) << "." << std::hex << std::setfill('0');
  for (int i = 0; i < kDigestBytes; ++i) {
    name << std::setw(2) << static_cast<int>(digest[static_cast<size_t>(i)]);
  }
  return name.str() + ".veturboio-save";
}

std::string random_suffix() {
  std::random_device random;
  return concat("-", random(), "-", random());
}

uint64_t round_up(uint64_t value, uint64_t unit) {
  return (value + unit - 1) / unit * unit;
}

// As few parts as keep all writers busy.
uint64_t choose_part_size(uint64_t size, uint64_t block_size) {
  if (size < kMinBlocksOfParts * block_size) {
    return 0;
  }
  return round_up((size + kMaxWriters - 1) / kMaxWriters, block_size);
}

std::string part_name(const std::string& folder, size_t index) {
  std::ostringstream name;
  name << "part-" << std::setfill('0') << std::setw(5) << index;
  return join(folder, name.str());
}

enum class Removal { kIfEmpty, kWithContent };

void remove(const Connection& connection, const std::string& path, Removal removal) {
  const Library& library = connection.library();
  if (library.remove(connection.get(), path.c_str(), removal == Removal::kWithContent ? 1 : 0) != 0 && errno != ENOENT) {
    throw call_error(library, "cfsDelete");
  }
}

}  // namespace

template <typename Call>
void SfcsWritableFile::on_connection(Call&& call) {
  (*mount_)->on_connection(retries_, [&](const std::shared_ptr<const Connection>& connection) { call(*connection); });
}

SfcsWritableFile::SfcsWritableFile(std::string uri, std::string_view path, uint64_t size)
    : WritableFile(std::move(uri)), size_(size) {
  try {
    Location location = locate(path);
    target_ = std::move(location.path);
    if (split(target_).name.empty()) {
      throw Error::from_errno(EISDIR, "");
    }
    mount_ = std::make_unique<Mount::User>(location.mount_group, std::move(location.settings));
    look_at_target();
    part_size_ = choose_part_size(size_, find_block_size());
    if (part_size_ == 0) {
      stage(split(target_).folder);
    } else {
      stage_parts(location.concat_dir.empty() ? split(target_).folder : location.concat_dir);
    }
  } catch (Error& error) {
    // The destructor does not run for an object that was never finished.
    if (mount_) {
      remove_stage();
    }
    throw error.in_file(this->uri());
  }
}

SfcsWritableFile::~SfcsWritableFile() {
  remove_stage();
}

WriteTraits SfcsWritableFile::traits() const {
  const bool one = part_size_ == 0;
  return {.chunk_size = one ? kMaxChunkBytes : std::min(part_size_, kMaxChunkBytes),
          .inline_bytes = 0,
          .parallelism = one ? 1 : static_cast<int>(parts_.size()),
          .run_size = one ? kInOrder : part_size_};
}

std::vector<std::string> SfcsWritableFile::warnings() const {
  std::vector<std::string> all = WritableFile::warnings();
  if (const std::string retried = retries_.summary(); !retried.empty()) {
    all.push_back(concat(uri(), ": ", retried));
  }
  return all;
}

void SfcsWritableFile::look_at_target() {
  on_connection([this](const Connection& connection) {
    try {
      if (get_file_info(connection, target_).is_directory) {
        throw Error::from_errno(EISDIR, "");
      }
    } catch (const Error& error) {
      if (error.code() != ENOENT) {
        throw;
      }
    }
  });
}

uint64_t SfcsWritableFile::find_block_size() {
  tOffset size = 0;
  on_connection([&](const Connection& connection) {
    size = connection.library().default_block_size(connection.get());
    if (size <= 0) {
      throw call_error(connection.library(), "cfsGetDefaultBlockSize");
    }
  });
  return static_cast<uint64_t>(size);
}

void SfcsWritableFile::stage(const std::string& folder) {
  const std::string name = stage_name(target_);
  try {
    parts_.push_back(create(join(folder, name)));
  } catch (const Error& error) {
    if (error.code() == ENOENT) {
      throw Error(ErrorKind::kIo, concat("there is no directory ", folder), ENOENT);
    }
    // Most likely another process saves this file at the same time. Whoever is last wins; if it is something else, it shows
    // again.
    parts_.push_back(create(join(folder, name + random_suffix())));
  }
  stage_ = parts_.front()->path();
}

void SfcsWritableFile::stage_parts(const std::string& folder) {
  const std::string name = stage_name(target_);
  const auto try_in = [&](const std::string& stage) {
    on_connection([&](const Connection& connection) {
      if (connection.library().create_directory(connection.get(), stage.c_str()) != 0) {
        throw call_error(connection.library(), "cfsCreateDirectory");
      }
    });
    try {
      lock_ = create(join(stage, "lock"));
    } catch (const Error&) {
      remove_if_empty(stage);
      throw;
    }
    stage_ = stage;
  };
  // cfsCreateDirectory would make the folder, too: a mistyped name is not a wish for a new one.
  if (folder == split(target_).folder && folder != "/") {
    on_connection([&](const Connection& connection) {
      try {
        get_file_info(connection, folder);
      } catch (const Error& error) {
        throw error.code() == ENOENT ? Error(ErrorKind::kIo, concat("there is no directory ", folder), ENOENT) : error;
      }
    });
  }
  try {
    try_in(join(folder, name));
  } catch (const Error&) {
    try_in(join(folder, name + random_suffix()));
  }
  parts_.resize((size_ + part_size_ - 1) / part_size_);
}

// Where there is something in it, another save is at work there.
void SfcsWritableFile::remove_if_empty(const std::string& folder) {
  try {
    on_connection([&](const Connection& connection) { remove(connection, folder, Removal::kIfEmpty); });
  } catch (const Error&) {
    // Then it is not empty, or what has brought us here is told.
  }
}

std::unique_ptr<Part> SfcsWritableFile::create(const std::string& path) {
  return std::make_unique<Part>(*mount_, retries_, path);
}

uint64_t SfcsWritableFile::end_of_part(size_t index) const {
  return std::min(size_, (index + 1) * part_size_);
}

void SfcsWritableFile::do_write_at(uint64_t offset, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const size_t index = part_size_ == 0 ? 0 : offset / part_size_;
    const uint64_t begin = index * part_size_;
    if (part_size_ != 0 && offset >= size_) {
      throw Error(ErrorKind::kInvalidArgument, concat("a write goes past the ", size_, " bytes that were announced"))
          .at_offset(offset);
    }
    const uint64_t size = part_size_ == 0 ? bytes.size() : std::min<uint64_t>(bytes.size(), end_of_part(index) - offset);
    std::unique_ptr<Part>& part = parts_[index];
    try {
      if (!part) {
        part = create(part_name(stage_, index));
      }
      if (offset != begin + part->size()) {
        throw Error(ErrorKind::kInvalidArgument,
                    concat("a file of SFCS is written in order, and byte ", begin + part->size(), " is next"));
      }
      part->append(bytes.first(size));
      if (part_size_ != 0 && begin + part->size() == end_of_part(index)) {
        part->close();
      }
    } catch (Error& error) {
      throw error.at_offset(part ? begin + part->size() : begin);
    }
    offset += size;
    bytes = bytes.subspan(size);
  }
}

void SfcsWritableFile::do_commit() {
  if (part_size_ == 0) {
    parts_.front()->close();
    rename(parts_.front()->path());
    stage_.clear();
    return;
  }
  for (size_t i = 0; i < parts_.size(); ++i) {
    const uint64_t expected = end_of_part(i) - i * part_size_;
    const uint64_t found = parts_[i] ? parts_[i]->size() : 0;
    if (found != expected) {
      throw Error(ErrorKind::kInvalidArgument, "not all of the bytes that were announced have been written")
          .at_offset(i * part_size_ + found);
    }
  }
  join_parts();
  rename(parts_.front()->path());
  remove_stage();
}

void SfcsWritableFile::join_parts() {
  const std::string& first = parts_.front()->path();
  std::vector<const char*> others;
  for (size_t i = 1; i < parts_.size(); ++i) {
    others.push_back(parts_[i]->path().c_str());
  }
  // Whether a call that failed has joined them all the same, the file's size tells; and one that did not fail, likewise.
  on_connection([&](const Connection& connection) {
    const Library& library = connection.library();
    if (get_file_info(connection, first).size == size_) {
      return;
    }
    if (library.concat(connection.get(), first.c_str(), others.data(), static_cast<int>(others.size())) != 0) {
      throw call_error(library, "cfsConcat");
    }
    const uint64_t found = get_file_info(connection, first).size;
    if (found != size_) {
      throw Error(ErrorKind::kIo, concat("the joined parts have ", found, " bytes instead of ", size_), ENODATA);
    }
  });
}

void SfcsWritableFile::rename(const std::string& from) {
  const uint64_t written = part_size_ == 0 ? parts_.front()->size() : size_;
  bool is_again = false;
  on_connection([&](const Connection& connection) {
    const Library& library = connection.library();
    if (library.rename(connection.get(), from.c_str(), target_.c_str()) == 0) {
      return;
    }
    const Error error = call_error(library, "cfsRename2");
    // Of a call that failed before it may still have been done: then there is nothing left to rename.
    if (!(std::exchange(is_again, true) && error.code() == ENOENT && get_file_info(connection, target_).size == written)) {
      throw error;
    }
  });
}

// What cannot be removed the next save of the file removes.
void SfcsWritableFile::remove_stage() {
  if (!stage_.empty()) {
    try {
      // Before anything is closed: no other save of the file begins in what goes now.
      on_connection([this](const Connection& connection) { remove(connection, stage_, Removal::kWithContent); });
    } catch (const Error& error) {
      warn(concat("what is left of the save was not removed: ", stage_, ": ", error.cause()));
    }
    stage_.clear();
  }
  parts_.clear();
  lock_.reset();
}

}  // namespace veturbo::storage::sfcs
