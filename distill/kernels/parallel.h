// What the kernels share.
#pragma once

#include <algorithm>
#include <cstdint>
#include <thread>
#include <vector>

// work(first, last) for shares of 0..n-1 on each of some threads.
template <typename F>
void parallel(int64_t n, int threads, F work) {
    const int64_t each = (n + threads - 1) / threads;
    std::vector<std::thread> others;
    for (int64_t first = each; first < n; first += each)
        others.emplace_back(work, first, std::min(first + each, n));
    work(0, std::min(each, n));
    for (std::thread& other : others) other.join();
}
