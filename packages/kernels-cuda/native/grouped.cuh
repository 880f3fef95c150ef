// Products of rows by the weights of their experts: what is multiplied, and how it is cut into tiles. Rows lie by expert, expert e's from
// offsets[e] up to offsets[e + 1]; the device alone knows these numbers, so blocks walk over the tiles that they give.
#pragma once
#include "device.cuh"

namespace ds {
namespace grouped {

// y [R, n O] = x W';  dx [R, I] = dy W;  dW [O, I] = dy' x.
enum class Side { kForward, kInput, kWeight };

constexpr int kMostMatrices = 256;

// Which row of an operand belongs to a place: the place itself, or the token of the assignment there, order[place] / k.
struct Gather {
  const int32_t* order;
  uint32_t k;        // 0: rows lie by place
  uint32_t inverse;  // ceil(2^32 / k): a division by k is the upper half of a product
  __device__ __forceinline__ int row(int place) const {
    if (k == 0) return place;
    const uint32_t assignment = uint32_t(order[place]);
    return int(k == 1 ? assignment : __umulhi(assignment, inverse));
  }
};

template <class T, class TC> struct Product {
  const int32_t* offsets;
  int experts, first;  // of these from `first` on
  int out, size, parts;
  Gather gather_a, gather_b;
  const T* a;  // x, or dy; for kWeight the first column of dy that counts
  int64_t lda;
  const T* b;  // kWeight: x
  int64_t ldb;
  TC* c;  // all but kWeight
  bool accumulate;
  void* matrices[kMostMatrices];  // the weights [O, I], part by part; kWeight: where their gradients go

  __device__ __forceinline__ const T* weight(int part, int expert) const { return static_cast<const T*>(matrices[part * experts + expert]); }
  __device__ __forceinline__ TC* gradient(int expert) const { return static_cast<TC*>(matrices[expert]); }
};

// Rows [m0, ..) and columns [n0, ..) of an expert's product; m, n and k are the whole product's sizes.
struct Tile {
  int expert, begin, rows;  // of the expert
  int part;                 // kForward: which of the weights side by side
  int m0, n0, m, n, k;
};

// Hands out tiles in rising order: rows first, so that blocks at work at the same time share columns of the weights.
template <Side side, int BM, int BN> class Walk {
 public:
  template <class P> __device__ __forceinline__ bool find(const P& p, int64_t index, Tile& tile) {
    for (; expert_ < p.experts; expert_++) {
      const int begin = p.offsets[p.first + expert_], rows = p.offsets[p.first + expert_ + 1] - begin;
      const int m = side == Side::kWeight ? p.out : rows, n = side == Side::kForward ? p.out : p.size;
      const int m_tiles = (m + BM - 1) / BM, n_tiles = (n + BN - 1) / BN;
      const int64_t tiles = int64_t(m_tiles) * n_tiles * (side == Side::kForward ? p.parts : 1);
      if (index - before_ >= tiles) {
        before_ += tiles;
        continue;
      }
      const int at = int(index - before_), column = at / m_tiles;
      const int k = side == Side::kForward ? p.size : side == Side::kInput ? p.parts * p.out : rows;
      tile = {expert_, begin, rows, column / n_tiles, at % m_tiles * BM, column % n_tiles * BN, m, n, k};
      return true;
    }
    return false;
  }

 private:
  int expert_ = 0;
  int64_t before_ = 0;
};

// Where the element (row, column) of a tile's product goes.
template <Side side, class P> __device__ __forceinline__ auto* target(const P& p, const Tile& t, int row, int column) {
  if constexpr (side == Side::kForward) return p.c + int64_t(t.begin + row) * (int64_t(p.parts) * p.out) + int64_t(t.part) * p.out + column;
  else if constexpr (side == Side::kInput) return p.c + int64_t(t.begin + row) * p.size + column;
  else return p.gradient(t.expert) + int64_t(row) * p.size + column;
}

}  // namespace grouped
}  // namespace ds
