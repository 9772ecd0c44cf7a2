#include "engine/job.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <future>
#include <latch>
#include <set>
#include <stdexcept>

#include "testing/errors.h"

namespace veturbo::engine {
namespace {

using std::chrono::duration;

TEST(Job, GivesEveryChunkToOneWorkerAndFinishesOnce) {
  for (const int threads : {0, 1, 2, 7}) {
    std::mutex mutex;
    std::multiset<size_t> taken;
    int finished = 0;
    Job job;
    job.start(threads, 1000, 100,
              {.run =
                   [&](Job& job, size_t) {
                     while (const auto chunk = job.next_chunk()) {
                       std::lock_guard lock(mutex);
                       taken.insert(*chunk);
                       job.add_done(10);
                     }
                   },
               .finish = [&] { ++finished; }});
    EXPECT_TRUE(job.wait(std::nullopt));
    job.rethrow_if_failed();
    EXPECT_EQ(taken.size(), 100U);
    EXPECT_EQ(std::set(taken.begin(), taken.end()).size(), 100U);
    EXPECT_EQ(finished, 1);
    EXPECT_EQ(job.bytes_done(), 1000U);
    EXPECT_EQ(job.bytes_total(), 1000U);
  }
}

// What a job's threads use, and the job.
struct Owner {
  explicit Owner(std::atomic<int>& count) : owners(count) { ++owners; }
  ~Owner() { --owners; }
  Owner(const Owner&) = delete;
  Owner& operator=(const Owner&) = delete;

  std::atomic<int>& owners;
  Job job;
};

TEST(Job, ThatIsDroppedKeepsItsOwnerUntilItsThreadsHaveComeBack) {
  std::atomic<int> owners = 0;
  std::latch answer(1);
  std::weak_ptr<Owner> silent;
  {
    const auto owner = std::make_shared<Owner>(owners);
    silent = owner;
    owner->job.start(2, 0, 1, {.run = [&](Job&, size_t) { answer.wait(); }});
    Job::drop({owner, &owner->job});
  }
  EXPECT_EQ(owners, 1);
  const auto drop_another = [&](int threads) {
    const auto owner = std::make_shared<Owner>(owners);
    if (threads >= 0) {
      owner->job.start(threads, 0, 1, {.run = [](Job&, size_t) {}});
    }
    Job::drop({owner, &owner->job});
  };
  for (const int threads : {-1, 0, 1}) {  // the first is never started
    drop_another(threads);
  }
  EXPECT_EQ(owners, 1);
  {
    const auto owner = silent.lock();
    ASSERT_TRUE(owner);
    EXPECT_TRUE(owner->job.stopped());
    answer.count_down();
    owner->job.wait(std::nullopt);
  }
  drop_another(1);
  EXPECT_EQ(owners, 0);
}

TEST(Job, ThatIsDroppedBeforeItsStartIsNotWaitedFor) {
  std::atomic<int> owners = 0;
  const auto owner = std::make_shared<Owner>(owners);
  const auto began = std::chrono::steady_clock::now();
  for (int i = 0; i < 100; ++i) {
    Job::drop({owner, &owner->job});
  }
  EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::seconds(5));
}

TEST(Job, WithoutThreadsIsDoneWhenItHasStarted) {
  std::thread::id worker;
  Job job;
  job.start(0, 0, 1, {.run = [&](Job&, size_t) { worker = std::this_thread::get_id(); }});
  EXPECT_EQ(worker, std::this_thread::get_id());
  EXPECT_TRUE(job.wait(duration<double>(0)));
}

TEST(Job, AddsWorkersWhileItRuns) {
  std::mutex mutex;
  std::set<size_t> workers;
  std::latch all_there(5);
  int finished = 0;
  Job job;
  job.start(2, 0, 1000,
            {.run =
                 [&](Job& job, size_t worker) {
                   job.add_workers(5);
                   {
                     std::lock_guard lock(mutex);
                     workers.insert(worker);
                   }
                   all_there.arrive_and_wait();
                   while (job.next_chunk()) {
                   }
                 },
             .finish = [&] { ++finished; }});
  job.wait(std::nullopt);
  job.rethrow_if_failed();
  EXPECT_EQ(workers, (std::set<size_t>{0, 1, 2, 3, 4}));
  EXPECT_EQ(finished, 1);
}

TEST(Job, AddsNoWorkersWhenNoChunkIsLeftOrItIsToStop) {
  std::atomic<int> workers = 0;
  {
    Job without_chunks;
    without_chunks.start(1, 0, 0, {.run = [&](Job& job, size_t) {
                           ++workers;
                           job.add_workers(3);
                         }});
  }
  EXPECT_EQ(workers, 1);
  {
    Job cancelled;
    cancelled.start(1, 0, SIZE_MAX, {.run = [&](Job& job, size_t) {
                      ++workers;
                      job.cancel();
                      job.add_workers(3);
                    }});
  }
  EXPECT_EQ(workers, 2);
}

TEST(Job, KeepsTheFirstErrorAndStopsTheOthers) {
  std::promise<void> failed;
  bool finished = false;
  Job job;
  job.start(2, 0, SIZE_MAX,
            {.run =
                 [&](Job& job, size_t worker) {
                   if (worker == 0) {
                     failed.set_value();
                     throw std::runtime_error("first");
                   }
                   failed.get_future().wait();
                   while (job.next_chunk()) {  // ends only because the other one failed
                   }
                   throw std::runtime_error("second");
                 },
             .finish = [&] { finished = true; }});
  job.wait(std::nullopt);
  try {
    job.rethrow_if_failed();
    FAIL();
  } catch (const std::runtime_error& error) {
    EXPECT_STREQ(error.what(), "first");
  }
  EXPECT_FALSE(finished);
}

TEST(Job, ReportsWhatFinishThrows) {
  Job job;
  job.start(1, 0, 0, {.run = [](Job&, size_t) {}, .finish = [] { throw std::runtime_error("commit"); }});
  job.wait(std::nullopt);
  EXPECT_THROW(job.rethrow_if_failed(), std::runtime_error);
}

TEST(Job, CancelledFailsAndDoesNotFinish) {
  bool finished = false;
  Job job;
  job.start(3, 0, SIZE_MAX,
            {.run =
                 [](Job& job, size_t) {
                   while (job.next_chunk()) {
                   }
                 },
             .finish = [&] { finished = true; }});
  EXPECT_FALSE(job.wait(duration<double>(0.01)));
  job.cancel();
  EXPECT_TRUE(job.wait(std::nullopt));
  EXPECT_EQ(testing::error_of([&] { job.rethrow_if_failed(); }).kind(), ErrorKind::kCancelled);
  EXPECT_FALSE(finished);
}

TEST(Job, CannotBeCancelledOnceItFinishes) {
  std::promise<void> finishing;
  std::promise<void> go_on;
  Job job;
  job.start(1, 0, 0,
            {.run = [](Job&, size_t) {},
             .finish =
                 [&] {
                   finishing.set_value();
                   go_on.get_future().wait();
                 }});
  finishing.get_future().wait();
  job.cancel();
  go_on.set_value();
  job.wait(std::nullopt);
  EXPECT_NO_THROW(job.rethrow_if_failed());
}

TEST(Job, AbandonsOnceWhenItFailsAndNeverOtherwise) {
  int abandoned = 0;
  const auto run_job = [&](bool fails_in_worker, bool fails_in_finish) {
    Job job;
    job.start(3, 0, 0,
              {.run =
                   [&](Job&, size_t worker) {
                     if (fails_in_worker && worker == 1) {
                       throw std::runtime_error("worker");
                     }
                   },
               .finish =
                   [&] {
                     if (fails_in_finish) {
                       throw std::runtime_error("finish");
                     }
                   },
               .abandon = [&] { ++abandoned; }});
    job.wait(std::nullopt);
  };
  run_job(false, false);
  EXPECT_EQ(abandoned, 0);
  run_job(true, false);
  EXPECT_EQ(abandoned, 1);
  run_job(false, true);
  EXPECT_EQ(abandoned, 2);
}

TEST(Job, DroppedWhileItRunsStopsAndJoins) {
  std::atomic<int> running = 0;
  {
    Job job;
    job.start(2, 0, SIZE_MAX, {.run = [&](Job& job, size_t) {
                ++running;
                while (job.next_chunk()) {
                }
                --running;
              }});
    while (running < 2) {
      std::this_thread::yield();
    }
  }
  EXPECT_EQ(running, 0);
}

TEST(Job, OfAForkedChildsParentHasFailedThereUnlessItHadEnded) {
  std::latch go(1);
  Job running;
  running.start(2, 0, 0, {.run = [&](Job&, size_t) { go.wait(); }});
  std::thread waiting([&] { running.wait(std::nullopt); });
  Job ended;
  ended.start(1, 0, 0, {.run = [](Job&, size_t) {}});
  ended.wait(std::nullopt);

  const pid_t child = ::fork();
  if (child == 0) {
    ::alarm(20);  // whoever waits for a thread of the parent waits for ever
    int wrong = 0;
    wrong += !running.wait(std::nullopt);
    running.cancel();
    try {
      running.rethrow_if_failed();
      ++wrong;
    } catch (const Error& error) {
      wrong += error.cause().find("before the process was forked") == std::string::npos;
    }
    ended.rethrow_if_failed();
    running.~Job();
    ended.~Job();
    ::_exit(wrong);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  go.count_down();
  waiting.join();
  running.rethrow_if_failed();
}

}  // namespace
}  // namespace veturbo::engine
