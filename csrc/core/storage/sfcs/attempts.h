#pragma once

#include <mutex>
#include <string>

#include "base/error.h"

namespace veturbo::storage::sfcs {

// The failures of one file's calls that went away by themselves.
class Retries {
 public:
  void add(const Error& error);
  // One sentence for who has waited for it; empty when there was none.
  std::string summary() const;

 private:
  mutable std::mutex mutex_;
  int count_ = 0;
  std::string last_;
};

// One operation's failures. A network and the servers behind it fail now and then, and what is asked a little later is answered.
class Attempts {
 public:
  explicit Attempts(Retries& retries) : retries_(retries) {}

  // Returns, after a pause that grows, when the operation is to be tried again; throws `error` when that is of no use, or has
  // been of none three times.
  void pause_after(const Error& error);
  int failures() const { return failures_; }

 private:
  Retries& retries_;
  int failures_ = 0;
};

// Whether the same call may succeed a little later.
bool is_transient(int code);

// Whether credentials were refused, or nobody is at the name node's address: who has both from the trusted service may have old
// ones.
bool is_denied(int code);
bool is_unreachable(int code);

}  // namespace veturbo::storage::sfcs
