#include "storage/sfcs/sfcs_writable_file.h"

#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <exception>
#include <iomanip>
#include <optional>
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
// Where the size is not known, parts are kept in memory until they are whole.
constexpr uint64_t kStreamWriters = 4;
constexpr uint64_t kStreamPartBytes = uint64_t{64} << 20;
constexpr unsigned kMode = 0644;

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

std::string random_token() {
  std::random_device random;
  return concat(random(), "-", random());
}

uint64_t round_up(uint64_t value, uint64_t unit) {
  return (value + unit - 1) / unit * unit;
}

// As few parts as keep all writers busy; 0 for one.
uint64_t choose_part_size(uint64_t size, uint64_t block_size) {
  if (size == 0) {
    return round_up(kStreamPartBytes, block_size);
  }
  if (size < kMinBlocksOfParts * block_size) {
    return 0;
  }
  return round_up((size + kMaxWriters - 1) / kMaxWriters, block_size);
}

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
    concat_dir_ = std::move(location.concat_dir);
    token_ = random_token();
    look_at_target();
    part_size_ = choose_part_size(size_, find_block_size());
    make_folder();
  } catch (Error& error) {
    throw error.in_file(this->uri());
  }
}

SfcsWritableFile::~SfcsWritableFile() {
  remove_folder();
}

WriteTraits SfcsWritableFile::traits() const {
  if (part_size_ == 0) {
    return {.chunk_size = kMaxChunkBytes, .inline_bytes = 0, .parallelism = 1, .run_size = kInOrder};
  }
  const uint64_t writers = size_ == 0 ? kStreamWriters : std::min(kMaxWriters, (size_ + part_size_ - 1) / part_size_);
  return {.chunk_size = std::min(part_size_, kMaxChunkBytes),
          .inline_bytes = 0,
          .parallelism = static_cast<int>(writers),
          .run_size = part_size_};
}

std::vector<std::string> SfcsWritableFile::warnings() const {
  std::vector<std::string> all = WritableFile::warnings();
  if (const std::string retried = retries_.summary(); !retried.empty()) {
    all.push_back(concat(uri(), ": ", retried));
  }
  return all;
}

void SfcsWritableFile::look_at_target() {
  const std::string folder = split(target_).folder;
  on_connection([&](const Connection& connection) {
    try {
      const FileInfo info = get_file_info(connection, target_);
      if (info.is_directory) {
        throw Error::from_errno(EISDIR, "");
      }
      // rename() asks only for the folder's permission; a file that was made read-only is meant to stay as it is.
      if (info.mode != 0 && (info.mode & 0222U) == 0) {
        throw Error::from_errno(EACCES, "");
      }
      if (info.mode != 0 && (info.mode & 0777U) != kMode) {
        warn("SFCS does not set modes: the file's permissions are not those of the one it replaces");
      }
      return;
    } catch (const Error& error) {
      if (error.code() != ENOENT) {
        throw;
      }
    }
    // cfsCreateDirectory would make the folder, too: a mistyped name is not a wish for a new one.
    if (folder != "/") {
      try {
        get_file_info(connection, folder);
      } catch (const Error& error) {
        throw error.code() == ENOENT ? Error(ErrorKind::kIo, concat("there is no directory ", folder), ENOENT) : error;
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

void SfcsWritableFile::make_folder() {
  const std::string path = join(concat_dir_.empty() ? split(target_).folder : concat_dir_, stage_name(target_));
  try {
    // Where there is something in it afterwards, another save is at work there.
    make_folder(path, Removal::kIfEmpty);
  } catch (const Error&) {
    // Most likely another process saves this file at the same time. Whoever is last wins; if it is something else, it shows
    // again.
    make_folder(concat(path, "-", token_), Removal::kWithContent);
  }
}

void SfcsWritableFile::make_folder(const std::string& path, Removal on_failure) {
  on_connection([&](const Connection& connection) {
    if (connection.library().create_directory(connection.get(), path.c_str()) != 0) {
      throw call_error(connection.library(), "cfsCreateDirectory");
    }
  });
  try {
    lock_ = std::make_unique<Part>(*mount_, retries_, join(path, "lock"), Part::Name::kAsGiven);
  } catch (const Error&) {
    try {
      on_connection([&](const Connection& connection) { remove(connection, path, on_failure); });
    } catch (const Error&) {
      // It is not empty, or what has brought us here is told.
    }
    throw;
  }
  folder_ = path;
}

Part& SfcsWritableFile::part_at(size_t index) {
  std::unique_ptr<Part>* part = nullptr;
  {
    std::lock_guard lock(mutex_);
    while (parts_.size() <= index) {
      parts_.emplace_back();
    }
    part = &parts_[index];
  }
  if (!*part) {
    const std::string path = join(folder_, concat("part-", token_, "-", index));
    *part = std::make_unique<Part>(*mount_, retries_, path, Part::Name::kUnique);
  }
  return **part;
}

uint64_t SfcsWritableFile::end_of_part(size_t index) const {
  const uint64_t end = (index + 1) * part_size_;
  return size_ == 0 ? end : std::min(size_, end);
}

void SfcsWritableFile::do_write_at(uint64_t offset, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    if (size_ != 0 && offset >= size_) {
      throw Error(ErrorKind::kInvalidArgument, concat("a write goes past the ", size_, " bytes that were announced"))
          .at_offset(offset);
    }
    const size_t index = part_size_ == 0 ? 0 : offset / part_size_;
    const uint64_t begin = index * part_size_;
    const uint64_t room = part_size_ != 0 ? end_of_part(index) - offset : size_ != 0 ? size_ - offset : bytes.size();
    const uint64_t size = std::min<uint64_t>(bytes.size(), room);
    uint64_t reached = begin;
    try {
      Part& part = part_at(index);
      reached = begin + part.size();
      if (offset != reached) {
        throw Error(ErrorKind::kInvalidArgument, concat("a file of SFCS is written in order, and byte ", reached, " is next"));
      }
      part.append(bytes.first(size));
      if (part_size_ != 0 && begin + part.size() == end_of_part(index)) {
        part.close();
      }
    } catch (Error& error) {
      throw error.at_offset(reached);
    }
    offset += size;
    bytes = bytes.subspan(size);
  }
}

uint64_t SfcsWritableFile::written() const {
  uint64_t total = 0;
  for (const std::unique_ptr<Part>& part : parts_) {
    total += part ? part->size() : 0;
  }
  return total;
}

void SfcsWritableFile::do_commit() {
  if (parts_.empty()) {
    part_at(0);
  }
  bool is_whole = size_ == 0 || written() == size_;
  for (size_t i = 0; i + 1 < parts_.size(); ++i) {
    is_whole = is_whole && parts_[i] && parts_[i]->size() == part_size_;
  }
  if (!is_whole) {
    throw Error(ErrorKind::kInvalidArgument,
                concat(written(), " bytes have been written, which leaves gaps in the file or at its end"));
  }
  if (parts_.back()->is_open()) {
    parts_.back()->close();
  }
  if (parts_.size() > 1) {
    join_parts();
  }
  rename_first_part();
  remove_folder();
}

void SfcsWritableFile::join_parts() {
  const std::string& first = parts_.front()->path();
  const uint64_t total = written();
  std::vector<const char*> others;
  for (size_t i = 1; i < parts_.size(); ++i) {
    others.push_back(parts_[i]->path().c_str());
  }
  // Whether a call that failed has joined them all the same, the file's size tells.
  on_connection([&](const Connection& connection) {
    const Library& library = connection.library();
    if (get_file_info(connection, first).size == total) {
      return;
    }
    if (library.concat(connection.get(), first.c_str(), others.data(), static_cast<int>(others.size())) != 0) {
      throw call_error(library, "cfsConcat");
    }
    const uint64_t found = get_file_info(connection, first).size;
    if (found != total) {
      throw Error(ErrorKind::kIo, concat("the joined parts have ", found, " bytes instead of ", total), ENODATA);
    }
  });
}

void SfcsWritableFile::rename_first_part() {
  const std::string& from = parts_.front()->path();
  std::optional<FileInfo> before;
  on_connection([&](const Connection& connection) {
    const Library& library = connection.library();
    const bool is_again = before.has_value();
    if (!is_again) {
      before = get_file_info(connection, from);
    }
    if (library.rename(connection.get(), from.c_str(), target_.c_str()) == 0) {
      return;
    }
    const Error error = call_error(library, "cfsRename2");
    // Of a call that failed before it may still have been done: then there is nothing left to rename.
    const auto is_done = [&] {
      const FileInfo now = get_file_info(connection, target_);
      return now.size == before->size && now.modified == before->modified;
    };
    if (is_again && error.code() == ENOENT && is_done()) {
      return;
    }
    // Another save of the same file is giving its own the name.
    throw error.code() == EBUSY ? Error(error.kind(), error.cause(), EAGAIN) : error;
  });
}

// What cannot be removed the next save of the file removes.
void SfcsWritableFile::remove_folder() {
  if (!folder_.empty()) {
    try {
      // Before the lock is closed: no other save begins in what goes now.
      on_connection([this](const Connection& connection) { remove(connection, folder_, Removal::kWithContent); });
    } catch (const std::exception& error) {
      warn(concat("what is left of the save was not removed: ", folder_, ": ", error.what()));
    }
    folder_.clear();
  }
  parts_.clear();
  lock_.reset();
}

}  // namespace veturbo::storage::sfcs
