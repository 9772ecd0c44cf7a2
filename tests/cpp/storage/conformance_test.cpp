// What every storage back end must do, and files that are encrypted on one. A back end joins with one line at the end of this
// file.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <functional>
#include <memory>
#include <thread>

#include "base/error.h"
#include "storage/encrypted_file.h"
#include "storage/open.h"
#include "testing/errors.h"
#include "testing/memory_files.h"
#include "testing/sfcs_cluster.h"
#include "testing/temporary_directory.h"

namespace veturbo::storage {
namespace {

using testing::pattern;

// Where a back end keeps the files of one test, from outside of the back end.
class Place {
 public:
  virtual ~Place() = default;
  virtual std::string uri(const std::string& name) const = 0;
  virtual std::unique_ptr<ReadableFile> open(const std::string& name) const { return open_for_read(uri(name), {}); }
  virtual std::unique_ptr<WritableFile> create(const std::string& name, uint64_t size) const {
    return open_for_write(uri(name), size);
  }
  virtual size_t num_files() const = 0;
  // A file of `size` bytes that ends with `end` and holds zeros before it, without writing those. False if that cannot be had.
  virtual bool make_sparse(const std::string& name, uint64_t size, std::span<const std::byte> end) const = 0;
};

struct Backend {
  std::string name;
  std::function<std::unique_ptr<Place>()> make_place;
};

class Conformance : public ::testing::TestWithParam<Backend> {
 protected:
  std::unique_ptr<ReadableFile> open(const std::string& name) const { return place_->open(name); }

  // In pieces of `piece` bytes, the last run first.
  void save(const std::string& name, std::span<const std::byte> bytes, size_t piece = 1000) const {
    const auto file = place_->create(name, bytes.size());
    const WriteTraits traits = file->traits();
    const uint64_t run_size = traits.run_size == kAnyOrder ? piece : traits.run_size;
    const uint64_t shift = traits.run_size == kAnyOrder ? 0 : traits.run_shift;
    for (uint64_t end = bytes.size(); end > 0;) {
      const uint64_t into_run = (end - 1 + shift) % run_size + 1;
      const uint64_t begin = into_run >= end ? 0 : end - into_run;
      for (uint64_t at = begin; at < end; at += piece) {
        file->write_at(at, bytes.subspan(at, std::min<uint64_t>(piece, end - at)));
      }
      end = begin;
    }
    file->commit();
    EXPECT_TRUE(file->warnings().empty());
  }

  std::vector<std::byte> load(const std::string& name) const {
    const auto file = open(name);
    std::vector<std::byte> bytes(file->size());
    file->read_at(0, bytes);
    return bytes;
  }

  std::unique_ptr<Place> place_ = GetParam().make_place();
};

TEST_P(Conformance, KeepsEveryByteOfEverySize) {
  for (const size_t size : {0, 1, 511, 4095, 4096, 4097, 1'000'000, 9'000'001}) {
    const std::vector<std::byte> bytes = pattern(size);
    save("file", bytes, 65'536);
    EXPECT_EQ(load("file"), bytes) << size;
  }
  EXPECT_EQ(place_->num_files(), 1U);
}

TEST_P(Conformance, ReadsAnyRange) {
  const std::vector<std::byte> bytes = pattern(20'000);
  save("file", bytes);
  const auto file = open("file");
  for (const size_t offset : {0, 1, 4095, 4096, 4097, 19'999, 20'000}) {
    for (const size_t size : {0, 1, 2, 4095, 4096, 8193}) {
      if (offset + size > bytes.size()) {
        continue;
      }
      std::vector<std::byte> out(size + 1, std::byte{0xEE});
      file->read_at(offset, std::span(out).first(size));
      EXPECT_TRUE(std::equal(out.begin(), out.end() - 1, bytes.begin() + static_cast<std::ptrdiff_t>(offset)));
      EXPECT_EQ(out.back(), std::byte{0xEE});
    }
  }
}

TEST_P(Conformance, RefusesToReadPastTheEnd) {
  save("file", pattern(100));
  const auto file = open("file");
  std::vector<std::byte> out(2);
  for (const uint64_t offset : {uint64_t{99}, uint64_t{100}, uint64_t{101}, UINT64_MAX}) {
    const Error error = testing::error_of([&] { file->read_at(offset, out); });
    EXPECT_EQ(error.kind(), ErrorKind::kInvalidArgument);
    EXPECT_EQ(error.file(), place_->uri("file"));
    EXPECT_EQ(error.offset(), offset);
  }
}

TEST_P(Conformance, ReadsBeyondFourGigabytes) {
  const uint64_t size = (uint64_t{5} << 30) + 3;
  const std::vector<std::byte> end = pattern(5000);
  if (!place_->make_sparse("file", size, end)) {
    GTEST_SKIP() << "this back end makes no sparse files";
  }
  const auto file = open("file");
  ASSERT_EQ(file->size(), size);
  std::vector<std::byte> out(5000);
  file->read_at(size - 5000, out);
  EXPECT_EQ(out, end);
}

TEST_P(Conformance, WritesBeyondFourGigabytes) {
  const uint64_t size = (uint64_t{4} << 30) + 10;
  const auto file = place_->create("file", size);
  if (file->traits().run_size != kAnyOrder) {
    GTEST_SKIP() << "this back end writes in order: it would be 4 GiB of data";
  }
  const std::vector<std::byte> end = pattern(20);
  file->write_at(size - 20, end);
  file->commit();
  std::vector<std::byte> out(20);
  open("file")->read_at(size - 20, out);
  EXPECT_EQ(out, end);
}

TEST_P(Conformance, ServesManyReadersOfOneFile) {
  const std::vector<std::byte> bytes = pattern(300'000);
  save("file", bytes, 50'000);
  const auto file = open("file");
  std::atomic<int> wrong = 0;
  std::vector<std::thread> readers;
  for (size_t reader = 0; reader < 8; ++reader) {
    readers.emplace_back([&, reader] {
      std::vector<std::byte> out(7'001);
      for (size_t offset = reader * 131; offset + out.size() <= bytes.size(); offset += 7'777) {
        file->read_at(offset, out);
        wrong += !std::equal(out.begin(), out.end(), bytes.begin() + static_cast<std::ptrdiff_t>(offset));
      }
    });
  }
  for (std::thread& reader : readers) {
    reader.join();
  }
  EXPECT_EQ(wrong, 0);
}

TEST_P(Conformance, ServesManyWritersOfOneFile) {
  const std::vector<std::byte> bytes = pattern(300'000);
  {
    const auto file = place_->create("file", bytes.size());
    if (file->traits().run_size != kAnyOrder) {
      GTEST_SKIP() << "this back end does not take writes in any order";
    }
    std::vector<std::thread> writers;
    for (size_t writer = 0; writer < 6; ++writer) {
      writers.emplace_back([&, writer] { file->write_at(writer * 50'000, std::span(bytes).subspan(writer * 50'000, 50'000)); });
    }
    for (std::thread& writer : writers) {
      writer.join();
    }
    file->commit();
  }
  EXPECT_EQ(load("file"), bytes);
}

TEST_P(Conformance, SaysThatAFileIsMissing) {
  const Error error = testing::error_of([&] { open("missing"); });
  EXPECT_EQ(error.kind(), ErrorKind::kIo);
  EXPECT_EQ(error.code(), ENOENT);
  EXPECT_EQ(error.file(), place_->uri("missing"));
}

TEST_P(Conformance, ReplacesAFileOnlyWhenItIsCommitted) {
  const std::vector<std::byte> before = pattern(5'000, 1);
  const std::vector<std::byte> after = pattern(7'000, 2);
  save("file", before);
  const auto reader = open("file");
  {
    const auto file = place_->create("file", after.size());
    file->write_at(0, after);
    EXPECT_EQ(load("file"), before);
    file->commit();
  }
  EXPECT_EQ(load("file"), after);
  std::vector<std::byte> out(before.size());
  reader->read_at(0, out);
  EXPECT_EQ(out, before) << "a reader that was there before keeps what it opened";
}

TEST_P(Conformance, LeavesNothingOfAnAbortedWrite) {
  const std::vector<std::byte> before = pattern(5'000, 1);
  save("old", before);
  for (const char* name : {"old", "new"}) {
    const auto file = place_->create(name, 7'000);
    file->write_at(0, pattern(3'000, 2));
  }
  EXPECT_EQ(load("old"), before);
  EXPECT_EQ(place_->num_files(), 1U);
}

TEST_P(Conformance, WritesAFileAgainAndAgain) {
  for (uint32_t i = 0; i < 20; ++i) {
    const std::vector<std::byte> bytes = pattern(1'000 + 100 * (i % 3), i);
    save("file", bytes);
    ASSERT_EQ(load("file"), bytes);
  }
  EXPECT_EQ(place_->num_files(), 1U);
}

TEST_P(Conformance, WritesAFileWhoseSizeIsNotKnownBefore) {
  const std::vector<std::byte> bytes = pattern(10'000);
  const auto file = place_->create("file", 0);
  for (size_t offset = 0; offset < bytes.size(); offset += 1'000) {
    file->write_at(offset, std::span(bytes).subspan(offset, 1'000));
  }
  file->commit();
  EXPECT_EQ(load("file"), bytes);
}

TEST_P(Conformance, MapsTheFileWhereItSaysSo) {
  const std::vector<std::byte> bytes = pattern(10'000);
  save("file", bytes);
  const auto file = open("file");
  if (file->traits().mappable) {
    const MappedRegion region = file->map();
    ASSERT_EQ(region.size(), bytes.size());
    EXPECT_TRUE(std::equal(bytes.begin(), bytes.end(), region.data()));
  } else {
    EXPECT_EQ(testing::error_of([&] { file->map(); }).kind(), ErrorKind::kInvalidArgument);
  }
}

TEST(Uris, OfNoKnownBackEndAreRefused) {
  const Error error = testing::error_of([] { open_for_read("tape://reel/1", {}); });
  EXPECT_EQ(error.kind(), ErrorKind::kInvalidArgument);
  EXPECT_STREQ(error.what(), "tape://reel/1: no storage back end for \"tape://\": give a path or one of file://, sfcs://");
}

TEST(Uris, WithANulByteAreRefused) {
  const std::string path("fi\0le", 5);
  EXPECT_EQ(testing::error_of([&] { open_for_read(path, {}); }).cause(), "a path cannot contain a NUL byte");
  EXPECT_EQ(testing::error_of([&] { open_for_write(path, 0); }).cause(), "a path cannot contain a NUL byte");
}

TEST(Uris, HaveASchemeOnlyBeforeTheFirstSlash) {
  EXPECT_EQ(testing::error_of([] { open_for_read("./missing/x://y", {}); }).code(), ENOENT);
}

TEST(Uris, OfLocalFilesHaveAnAbsolutePath) {
  const std::string here = std::filesystem::current_path();
  EXPECT_EQ(absolute_path("model"), here + "/model");
  EXPECT_EQ(absolute_path("a/../b/./model"), here + "/b/model");
  EXPECT_EQ(absolute_path("/a/model"), "/a/model");
  EXPECT_EQ(absolute_path("file:///a/model"), "/a/model");
  EXPECT_EQ(absolute_path("sfcs://a/model"), "/a/model");
  EXPECT_EQ(absolute_path("sfcs:///a//model"), "/a/model");
}

// A file of zeros and of `end` after them that takes little space.
void write_sparse(const std::string& path, uint64_t size, std::span<const std::byte> end) {
  testing::write_text(path, "");
  std::filesystem::resize_file(path, size - end.size());
  std::ofstream(path, std::ios::binary | std::ios::app)
      .write(reinterpret_cast<const char*>(end.data()), static_cast<std::streamsize>(end.size()));
}

class PosixPlace : public Place {
 public:
  explicit PosixPlace(std::string prefix = "") : prefix_(std::move(prefix)) {}

  std::string uri(const std::string& name) const override { return prefix_ + directory_ / name; }
  size_t num_files() const override { return directory_.names().size(); }
  bool make_sparse(const std::string& name, uint64_t size, std::span<const std::byte> end) const override {
    write_sparse(directory_ / name, size, end);
    return true;
  }

 private:
  testing::TemporaryDirectory directory_;
  std::string prefix_;
};

class SfcsPlace : public Place {
 public:
  std::string uri(const std::string& name) const override { return "sfcs:/" + folder_ + "/" + name; }
  size_t num_files() const override {
    const auto all = std::filesystem::recursive_directory_iterator(cluster_.files() + folder_);
    return static_cast<size_t>(std::distance(begin(all), end(all)));
  }
  bool make_sparse(const std::string& name, uint64_t size, std::span<const std::byte> end) const override {
    write_sparse(cluster_.files() + folder_ + "/" + name, size, end);
    return true;
  }

 private:
  testing::SfcsCluster& cluster_ = testing::SfcsCluster::get();
  std::string folder_ = cluster_.make_folder();
};

// Encrypted files over a back end: what is written through one comes back through the other.
template <typename Ciphertext>
class EncryptedPlace final : public Ciphertext {
 public:
  explicit EncryptedPlace(std::string header) : header_(std::move(header)) {}

  std::unique_ptr<ReadableFile> open(const std::string& name) const override {
    return std::make_unique<DecryptedFile>(Ciphertext::open(name), header_.size(), keystream_);
  }
  std::unique_ptr<WritableFile> create(const std::string& name, uint64_t size) const override {
    return std::make_unique<EncryptedFile>(Ciphertext::create(name, size == 0 ? 0 : header_.size() + size), header_, keystream_,
                                           "");
  }
  bool make_sparse(const std::string&, uint64_t, std::span<const std::byte>) const override { return false; }

 private:
  std::string header_;
  std::shared_ptr<const crypto::Keystream> keystream_ =
      crypto::make_keystream(crypto::make_data_key(Secret(pattern(32)), pattern(16), "key", "iv"));
};

template <typename PlaceType, typename... Args>
std::function<std::unique_ptr<Place>()> maker(Args... args) {
  return [args...] { return std::make_unique<PlaceType>(args...); };
}

const std::string kHeader(262'144, 'h');

INSTANTIATE_TEST_SUITE_P(Backends, Conformance,
                         ::testing::Values(Backend{"Posix", maker<PosixPlace>("")},
                                           Backend{"PosixUri", maker<PosixPlace>("file://")},
                                           Backend{"Encrypted", maker<EncryptedPlace<PosixPlace>>("")},
                                           Backend{"EncryptedWithHeader", maker<EncryptedPlace<PosixPlace>>(kHeader)},
                                           Backend{"Sfcs", maker<SfcsPlace>()},
                                           Backend{"EncryptedSfcs", maker<EncryptedPlace<SfcsPlace>>("")},
                                           Backend{"EncryptedSfcsWithHeader", maker<EncryptedPlace<SfcsPlace>>(kHeader)}),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace veturbo::storage
