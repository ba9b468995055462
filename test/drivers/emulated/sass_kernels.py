"""CUDA C and PTX that make NVRTC use what NVIDIA's machine code has."""

from __future__ import annotations

import re

EVERYTHING = r"""
#define TWO(how,x) how(x[0]),how(x[1])
#define FOUR(how,x) TWO(how,x),how(x[2]),how(x[3])
extern "C" __global__ void red(float*a,int*b){ atomicAdd(a,b[0]*1.f); atomicMax(b,threadIdx.x);
  int o=atomicCAS(b+1,3,4); b[2]=o; atomicExch(b+3,7);
 b[threadIdx.x+9]=__shfl_xor_sync(~0u,b[threadIdx.x],3)+__shfl_down_sync(~0u,b[5],1)
  +__ballot_sync(~0u,b[1]>3)
  +__popc(b[2])+__clz(b[3])+__ffs(b[4])+__brev(b[5])+__any_sync(~0u,b[7]==2)
  +__shfl_sync(~0u,b[1],b[2])+__shfl_up_sync(~0u,b[1],2);}
extern "C" __global__ void smem(float*a,int n){ __shared__ float s[256]; __shared__ int c;
  s[threadIdx.x]=a[threadIdx.x]; if(threadIdx.x==0)c=0; __syncthreads(); atomicAdd(&c,n);
  for(int i=128;i;i>>=1){ if(threadIdx.x<i) s[threadIdx.x]+=s[threadIdx.x+i]; __syncthreads();}
  a[0]=s[0]+c; float4 v=((float4*)a)[threadIdx.x]; v.x+=1; ((float4*)a)[threadIdx.x+n]=v; }
extern "C" __global__ void coll(int*a,int n){int i=blockIdx.x*blockDim.x+threadIdx.x; if(i<n){
  unsigned x=a[i]; int k=0; while(x!=1){ x = x&1?3*x+1:x/2; k++; } a[i]=k; }}
__device__ __noinline__ float fn(float x,int n){ float s=0; for(int i=0;i<n;i++) s+=sinf(x*i);
  return s; }
extern "C" __global__ void call(float*a,int n){ int i=threadIdx.x;
  a[i]=fn(a[i],n)/a[i+1]+sqrtf(a[i])+a[i+3]/fn(a[i+2],n+1); }
extern "C" __global__ void dbl(double*a,long long*b,int n){int i=threadIdx.x;
  a[i]=fma(a[i],a[i+1],a[i+2])+a[i+1]*3.; a[i+3]=a[i]<a[i+1]?a[i]/a[i+1]:sqrt(a[i]);
  b[i]=b[i]*b[i+1]+b[i+2]/b[i+3]; b[i+1]=(long long)a[i]; a[i+5]=b[i];
  a[i+6]=floor(a[i])+sin(a[i]); a[i+7]=fmin(a[i],a[i+8]); ((float*)a)[i]=a[i+3]; b[i+5]=b[i]%n
  + (b[i]>>n) + (b[i]<<n); }
extern "C" __global__ void local(int*a,int n){ int t[40]; for(int i=0;i<40;i++) t[i]=a[i];
  for(int i=0;i<n;i++) t[(i*7+a[i])%40]+=i; int s=0; for(int i=0;i<n;i++) s+=t[i]; a[n]=s; }
extern "C" __global__ void sw(int*a,int n){ int x=a[threadIdx.x]; switch(x){case
  0:x=3*n;break;case 1:x=n/3;break;case 2:x=a[n];break;case 3:x=n^5;break;case 4: x=a[2*n];
  break; case 5: x=n*n; break; case 6: x=~n; break; case 7: x=a[7]*3; break; default:x=9;}
  a[threadIdx.x]=x; }
extern "C" __global__ void gen(int*a,int n){ __shared__ int s[32]; int*p = n>threadIdx.x?
  s+threadIdx.x : a+threadIdx.x; s[threadIdx.x]=3; __syncthreads(); *p+=4; __threadfence();
  atomicAdd(p,2); a[5]=clock(); }
extern "C" __global__ void mma(unsigned*a,float*c){ int i=threadIdx.x; float d[4]; unsigned
  A[4]={a[i],a[i+32],a[i+64],a[i+96]},B[2]={a[i+128],a[i+160]}; for(int
  k=0;k<4;k++)d[k]=c[i+32*k]; asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 "
  "{%0,%1,%2,%3},{%4,%5},{%6},{%0,%1,%2,%3};":FOUR("+f",d):TWO("r",A),"r"(B[0]));
#if __CUDA_ARCH__>=800
 asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
  "{%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};":FOUR("+f",d):FOUR("r",A),TWO("r",B));
 asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
  "{%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};":FOUR("+f",d):FOUR("r",A),TWO("r",B));
 asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
  "{%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};":FOUR("+f",d):FOUR("r",A),TWO("r",B));
 c[i]=__reduce_add_sync(~0u,a[i]);
 int e[4]={1,2,3,4}; asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 "
  "{%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};":FOUR("+r",e):FOUR("r",A),TWO("r",B));
 d[0]+=e[0]+e[1]+e[2]+e[3];
#endif
 __shared__ __align__(16) unsigned s[256]; s[i]=a[i]; __syncthreads(); unsigned r[4]; unsigned
  p=__cvta_generic_to_shared(s+4*i); asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 "
  "{%0,%1,%2,%3},[%4];":FOUR("=r",r):"r"(p)); asm
  volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 "
  "{%0,%1},[%2];":TWO("=r",r):"r"(p)); d[1]+=r[0]+r[1]+r[2]+r[3];
 for(int k=0;k<4;k++)c[i+32*k]=d[k]; }
extern "C" __global__ void idp(int*a,unsigned char*b,short*c){int i=threadIdx.x;
  a[i]=__dp4a(a[i],a[i+1],a[i+2]); a[i+4]=min(a[i],max(a[i+2],a[i+3])); b[i]=b[i+1]*3;
  c[i]=c[i+1]/c[i+2]; a[i+5]=abs(a[i+6]); a[i+7]=__byte_perm(a[i],a[i+1],a[i+2]);
  a[i+8]=a[i]/a[i+1]; a[i+9]=(unsigned)a[i]%(unsigned)a[i+1];
  a[i+11]=__match_any_sync(~0u,a[i]); }
__device__ __noinline__ float f0(float x){return x*sinf(x);}
__device__ __noinline__ float f1(float x){return x+3;}
__device__ float (*table[2])(float)={f0,f1};
extern "C" __global__ void indirect(float*a,int n){ int i=threadIdx.x;
  a[i]=table[n>i](a[i])+table[n&1](a[i+1]); __nanosleep(100); }
__device__ int fib(int n){ return n<2?n:fib(n-1)+fib(n-2);}
extern "C" __global__ void recursive(int*a){ a[threadIdx.x]=fib(a[threadIdx.x]); }
extern "C" __global__ void shared(float*a,int n){ __shared__ float s[1024];
  extern __shared__ double dyn[]; int i=threadIdx.x;
  s[i]=a[i]; __syncthreads(); float t=0; for(int k=0;k<n;k++) t+=s[(i*k)&1023]*s[(i+k)&1023];
  a[i]=t; dyn[i]=t; __syncthreads(); a[i+5]=dyn[n-i]; char*c=(char*)s; c[i]=3; __syncthreads();
  a[i+9]=c[n+i]; atomicAdd(&s[i&7],1.f); atomicMin((int*)&s[n],i); __syncthreads();
  double d=dyn[0]; for(int k=0;k<n;k++) d=fma(d,dyn[k],1.0); a[i]=d;
  float4 v=((float4*)s)[i]; a[i+100]=v.x*v.w; }
extern "C" __global__ void predicates(int*a,int n){ int i=threadIdx.x; bool p[12]; int r=0;
  for(int k=0;k<12;k++) p[k]=a[i+k]>n; __syncthreads();
  for(int k=0;k<12;k++){ if(p[k]) r+=a[k]; a[i*k]=r; if(p[(k+5)%12]&&!p[(k+7)%12]) r^=k*77; }
  a[i]=r; }
extern "C" __global__ void wide(unsigned long long*a,unsigned long long n){
  a[3]=__umul64hi(a[4],n); a[5]=a[6]%n; a[7]=__popcll(a[8])+__clzll(a[9])+__ffsll(a[10]);
  a[11]=__brevll(a[12]); a[13]=min(a[14],a[15]); a[16]=(a[17]<<(n&63))|(a[18]>>(64-(n&63))); }
"""

STATEMENTS = {
    75: r"""
r rr add.rn.f16x2 %0,%1,%2;
r rr add.sat.f16x2 %0,%1,%2;
r rr add.ftz.f16x2 %0,%1,%2;
r rr sub.f16x2 %0,%1,%2;
r rr mul.f16x2 %0,%1,%2;
r rr mul.sat.f16x2 %0,%1,%2;
r rr mul.ftz.sat.f16x2 %0,%1,%2;
r rrr fma.rn.f16x2 %0,%1,%2,%3;
r rrr fma.rn.sat.f16x2 %0,%1,%2,%3;
r rrr fma.rn.ftz.f16x2 %0,%1,%2,%3;
h hh add.f16 %0,%1,%2;
h hh mul.f16 %0,%1,%2;
h hhh fma.rn.f16 %0,%1,%2,%3;
r r neg.f16x2 %0,%1;
r r abs.f16x2 %0,%1;
h hh {.reg .pred p; setp.lt.f16 p,%1,%2; selp.b16 %0,%1,%2,p;}
r rr {.reg .pred p,q; setp.ge.f16x2 p|q,%1,%2; selp.b32 %0,%1,%2,p; @q add.u32 %0,%0,7;}
r rr set.lt.f16x2.f16x2 %0,%1,%2;
f h cvt.f32.f16 %0,%1;
h f cvt.rn.f16.f32 %0,%1;
h f cvt.rz.f16.f32 %0,%1;
h d cvt.rn.f16.f64 %0,%1;
d h cvt.f64.f16 %0,%1;
h h cvt.rni.f16.f16 %0,%1;
r h cvt.rni.s32.f16 %0,%1;
l h cvt.rzi.u64.f16 %0,%1;
h r cvt.rn.f16.s32 %0,%1;
h l cvt.rn.f16.u64 %0,%1;
f f cvt.rpi.f32.f32 %0,%1;
f f cvt.rmi.ftz.f32.f32 %0,%1;
f f cvt.sat.f32.f32 %0,%1;
d d cvt.rni.f64.f64 %0,%1;
f d cvt.rm.f32.f64 %0,%1;
d f cvt.f64.f32 %0,%1;
r f cvt.rni.u8.f32 %0,%1;
r f cvt.rpi.s16.f32 %0,%1;
r f cvt.rmi.ftz.u32.f32 %0,%1;
l f cvt.rzi.s64.f32 %0,%1;
l d cvt.rni.u64.f64 %0,%1;
r d cvt.rzi.s32.f64 %0,%1;
f r cvt.rz.f32.u32 %0,%1;
f r cvt.rn.f32.s8 %0,%1;
f r cvt.rp.f32.u16 %0,%1;
f l cvt.rm.f32.s64 %0,%1;
d r cvt.rn.f64.s32 %0,%1;
d r cvt.rn.f64.u8 %0,%1;
d l cvt.rn.f64.u64 %0,%1;
r r cvt.s32.s8 %0,%1;
r r cvt.sat.u8.s32 %0,%1;
r r cvt.sat.s16.u32 %0,%1;
f ff add.rm.f32 %0,%1,%2;
f ff add.sat.ftz.f32 %0,%1,%2;
f ff mul.rp.f32 %0,%1,%2;
f ff mul.sat.f32 %0,%1,%2;
f fff fma.rz.f32 %0,%1,%2,%3;
f fff fma.rn.sat.f32 %0,%1,%2,%3;
f fff fma.rn.ftz.f32 %0,%1,%2,%3;
f ff min.f32 %0,%1,%2;
f ff max.ftz.f32 %0,%1,%2;
f ff copysign.f32 %0,%1,%2;
f ff div.full.f32 %0,%1,%2;
f ff div.rn.f32 %0,%1,%2;
f f sin.approx.f32 %0,%1;
f f cos.approx.ftz.f32 %0,%1;
f f ex2.approx.ftz.f32 %0,%1;
f f lg2.approx.f32 %0,%1;
f f rcp.approx.ftz.f32 %0,%1;
f f rsqrt.approx.ftz.f32 %0,%1;
f f sqrt.approx.ftz.f32 %0,%1;
f f sqrt.rn.f32 %0,%1;
f f tanh.approx.f32 %0,%1;
r r tanh.approx.f16x2 %0,%1;
r r ex2.approx.f16x2 %0,%1;
d d rcp.approx.ftz.f64 %0,%1;
d d rsqrt.approx.f64 %0,%1;
d d sqrt.rn.f64 %0,%1;
d dd div.rn.f64 %0,%1,%2;
d dd add.rm.f64 %0,%1,%2;
d dd mul.rz.f64 %0,%1,%2;
d ddd fma.rp.f64 %0,%1,%2,%3;
d dd min.f64 %0,%1,%2;
d dd max.f64 %0,%1,%2;
r dd {.reg .pred p; setp.leu.f64 p,%1,%2; selp.b32 %0,1,2,p;}
r dd {.reg .pred p; setp.num.f64 p,%1,%2; selp.b32 %0,1,2,p;}
r ff {.reg .pred p; setp.nan.f32 p,%1,%2; selp.b32 %0,1,2,p;}
r ff {.reg .pred p; setp.equ.ftz.f32 p,%1,%2; selp.b32 %0,1,2,p;}
r f {.reg .pred p; testp.subnormal.f32 p,%1; selp.b32 %0,1,2,p;}
r f {.reg .pred p; testp.normal.f32 p,%1; selp.b32 %0,1,2,p;}
r rr mul.hi.s32 %0,%1,%2;
r rr mul.hi.u32 %0,%1,%2;
r rrr mad.hi.s32 %0,%1,%2,%3;
l rr mul.wide.s32 %0,%1,%2;
l rrl mad.wide.u32 %0,%1,%2,%3;
l ll mul.hi.u64 %0,%1,%2;
l ll mul.hi.s64 %0,%1,%2;
l ll mul.lo.s64 %0,%1,%2;
r rr mul24.lo.s32 %0,%1,%2;
r rr mul24.hi.u32 %0,%1,%2;
r rrr sad.s32 %0,%1,%2,%3;
r rrr sad.u32 %0,%1,%2,%3;
r rrr bfe.s32 %0,%1,%2,%3;
r rrr bfe.u32 %0,%1,%2,%3;
r r bfe.s32 %0,%1,5,7;
r rrrr bfi.b32 %0,%1,%2,%3,%4;
l llrr bfi.b64 %0,%1,%2,%3,%4;
r r bfind.s32 %0,%1;
r r bfind.shiftamt.u32 %0,%1;
r l bfind.s64 %0,%1;
r rr bmsk.clamp.b32 %0,%1,%2;
r rr bmsk.wrap.b32 %0,%1,%2;
r rr szext.clamp.s32 %0,%1,%2;
r rr szext.wrap.u32 %0,%1,%2;
r r popc.b32 %0,%1;
r l popc.b64 %0,%1;
r l clz.b64 %0,%1;
l l brev.b64 %0,%1;
r rrr prmt.b32 %0,%1,%2,%3;
r rrr prmt.b32.f4e %0,%1,%2,%3;
r rrr prmt.b32.b4e %0,%1,%2,%3;
r rrr prmt.b32.rc8 %0,%1,%2,%3;
r rrr prmt.b32.ecl %0,%1,%2,%3;
r rrr prmt.b32.ecr %0,%1,%2,%3;
r rrr prmt.b32.rc16 %0,%1,%2,%3;
r rrr lop3.b32 %0,%1,%2,%3,0xca;
r rrr shf.l.wrap.b32 %0,%1,%2,%3;
r rrr shf.r.clamp.b32 %0,%1,%2,%3;
r rrr shf.r.wrap.b32 %0,%1,%2,%3;
l lr shr.s64 %0,%1,%2;
l lr shl.b64 %0,%1,%2;
r rr shr.s32 %0,%1,%2;
r rrr dp4a.s32.u32 %0,%1,%2,%3;
r rrr dp4a.u32.u32 %0,%1,%2,%3;
r rrr dp2a.lo.s32.s32 %0,%1,%2,%3;
r rrr dp2a.hi.u32.s32 %0,%1,%2,%3;
r rrrr {add.cc.u32 %0,%1,%2; addc.cc.u32 %0,%0,%3; addc.u32 %0,%0,%4;}
r rrr {sub.cc.u32 %0,%1,%2; subc.u32 %0,%0,%3;}
r rrrr {mad.lo.cc.u32 %0,%1,%2,%3; madc.hi.u32 %0,%1,%2,%4;}
l ll min.s64 %0,%1,%2;
l ll max.u64 %0,%1,%2;
l l abs.s64 %0,%1;
l ll div.s64 %0,%1,%2;
r rr rem.s32 %0,%1,%2;
r rrr vadd.s32.s32.s32.sat %0,%1.b0,%2.h1;
r rrr vabsdiff4.u32.u32.u32.add %0,%1,%2,%3;
r rrr vadd2.s32.s32.s32 %0,%1,%2,%3;
r rrr vset4.u32.u32.lt %0,%1,%2,%3;
r  mov.u32 %0,%%ntid.x;
r  mov.u32 %0,%%nctaid.y;
r  mov.u32 %0,%%warpid;
r  mov.u32 %0,%%nwarpid;
r  mov.u32 %0,%%smid;
r  mov.u32 %0,%%nsmid;
l  mov.u64 %0,%%gridid;
l  mov.u64 %0,%%clock64;
l  mov.u64 %0,%%globaltimer;
r  mov.u32 %0,%%lanemask_lt;
r  mov.u32 %0,%%lanemask_ge;
r  mov.u32 %0,%%pm0;
r  mov.u32 %0,%%dynamic_smem_size;
r  mov.u32 %0,%%total_smem_size;
r  activemask.b32 %0;
r rr {.reg .pred p; setp.ne.u32 p,%1,0; vote.sync.all.pred p,p,%2; selp.u32 %0,1,2,p;}
r rr {.reg .pred p; setp.ne.u32 p,%1,0; vote.sync.uni.pred p,p,%2; selp.u32 %0,1,2,p;}
r rr {.reg .pred p; match.all.sync.b32 %0|p,%1,%2; @p add.u32 %0,%0,1;}
r lr match.any.sync.b64 %0,%1,%2;
r lr {.reg .pred p; match.all.sync.b64 %0|p,%1,%2; @p add.u32 %0,%0,1;}
r rrrr {.reg .pred p; shfl.sync.up.b32 %0|p,%1,%2,%3,%4; @p add.u32 %0,%0,1;}
r rr shfl.sync.down.b32 %0,%1,3,0x181f,%2;
r rr shfl.sync.bfly.b32 %0,%1,16,0x1f,0xffffffff;
r r {bar.warp.sync %1; mov.u32 %0,1;}
r  {bar.arrive 3,64; mov.u32 %0,1;}
r rr {bar.sync %1,%2; mov.u32 %0,1;}
r r {bar.sync %1; mov.u32 %0,1;}
r r {bar.sync %1,64; mov.u32 %0,1;}
r r {bar.sync 3,%1; mov.u32 %0,1;}
r rr {bar.arrive %1,%2; mov.u32 %0,1;}
r r {bar.arrive %1,64; mov.u32 %0,1;}
r r {bar.arrive 3,%1; mov.u32 %0,1;}
r rr {.reg .pred p; setp.ne.u32 p,%1,0; bar.red.popc.u32 %0,2,p;}
r rrr {.reg .pred p; setp.ne.u32 p,%1,0; bar.red.popc.u32 %0,%2,%3,p;}
r rr {.reg .pred p; setp.ne.u32 p,%1,0; bar.red.popc.u32 %0,%2,64,p;}
r rr {.reg .pred p; setp.ne.u32 p,%1,0; bar.red.popc.u32 %0,3,%2,p;}
r rr {.reg .pred p; setp.ne.u32 p,%1,0; bar.red.and.pred p,2,64,p; selp.u32 %0,1,2,p;}
r rr {.reg .pred p; setp.ne.u32 p,%1,0; bar.red.or.pred p,2,p; selp.u32 %0,1,2,p;}
r pr atom.global.add.u32 %0,[%1],%2;
r pr atom.global.min.s32 %0,[%1],%2;
r pr atom.global.max.u32 %0,[%1+16],%2;
r pr atom.global.inc.u32 %0,[%1],%2;
r pr atom.global.dec.u32 %0,[%1],%2;
r pr atom.global.and.b32 %0,[%1],%2;
r pr atom.global.xor.b32 %0,[%1],%2;
r pr atom.global.or.b32 %0,[%1],%2;
r pr atom.global.exch.b32 %0,[%1],%2;
r prr atom.global.cas.b32 %0,[%1],%2,%3;
l pll atom.global.cas.b64 %0,[%1],%2,%3;
l pl atom.global.add.u64 %0,[%1],%2;
l pl atom.global.max.s64 %0,[%1],%2;
f pf atom.global.add.f32 %0,[%1],%2;
d pd atom.global.add.f64 %0,[%1],%2;
r pr atom.global.add.noftz.f16x2 %0,[%1],%2;
r pr atom.cta.relaxed.global.add.u32 %0,[%1],%2;
r pr atom.sys.global.add.u32 %0,[%1],%2;
r pr atom.acq_rel.gpu.global.add.u32 %0,[%1],%2;
r sr atom.shared.add.u32 %0,[%1],%2;
r sr atom.shared.min.s32 %0,[%1],%2;
r sr atom.shared.exch.b32 %0,[%1],%2;
r srr atom.shared.cas.b32 %0,[%1],%2,%3;
l sl atom.shared.exch.b64 %0,[%1],%2;
l sll atom.shared.cas.b64 %0,[%1],%2,%3;
l sl atom.shared.add.u64 %0,[%1],%2;
f sf atom.shared.add.f32 %0,[%1],%2;
r sr atom.shared.inc.u32 %0,[%1],%2;
r gr atom.add.u32 %0,[%1],%2;
r grr atom.cas.b32 %0,[%1],%2,%3;
l gll atom.cas.b64 %0,[%1],%2,%3;
f gf atom.add.f32 %0,[%1],%2;
 pr red.global.add.u32 [%0],%1;
 pr red.global.or.b32 [%0],%1;
 pr red.global.and.b32 [%0],%1;
 pr red.global.xor.b32 [%0],%1;
 pr red.global.inc.u32 [%0],%1;
 pl red.global.add.u64 [%0],%1;
 pl red.global.min.s64 [%0],%1;
 pd red.global.add.f64 [%0],%1;
 pr red.global.add.noftz.f16x2 [%0],%1;
 gr red.add.u32 [%0],%1;
r p ld.global.u8 %0,[%1];
r p ld.global.s8 %0,[%1];
r p ld.global.u16 %0,[%1];
r p ld.global.s16 %0,[%1+6];
l p ld.global.u64 %0,[%1];
rrrr p ld.global.v4.u32 {%0,%1,%2,%3},[%4];
ll p ld.global.v2.u64 {%0,%1},[%2];
r p ld.volatile.global.u32 %0,[%1];
r p ld.relaxed.gpu.global.u32 %0,[%1];
r p ld.relaxed.sys.global.u32 %0,[%1];
r p ld.acquire.gpu.global.u32 %0,[%1];
r p ld.acquire.cta.global.u32 %0,[%1];
r p ld.global.cs.u32 %0,[%1];
r p ld.global.cg.u32 %0,[%1];
r p ld.global.lu.u32 %0,[%1];
r p ld.global.cv.u32 %0,[%1];
r p ld.global.nc.u32 %0,[%1];
r p ld.global.nc.L1::no_allocate.u32 %0,[%1];
r p ld.global.L1::evict_last.u32 %0,[%1];
r p ld.global.L1::evict_unchanged.u32 %0,[%1];
rrrr p ld.global.nc.v4.u32 {%0,%1,%2,%3},[%4];
r g ld.u32 %0,[%1];
r g ld.s8 %0,[%1];
l g ld.u64 %0,[%1];
 gr st.u32 [%0],%1;
 gr st.u8 [%0],%1;
 gl st.u64 [%0],%1;
 pr st.global.u8 [%0],%1;
 pr st.global.u16 [%0],%1;
 pl st.global.u64 [%0],%1;
 prrrr st.global.v4.u32 [%0],{%1,%2,%3,%4};
 pr st.global.cs.u32 [%0],%1;
 pr st.global.cg.u32 [%0],%1;
 pr st.global.wt.u32 [%0],%1;
 pr st.volatile.global.u32 [%0],%1;
 pr st.release.gpu.global.u32 [%0],%1;
 pr st.relaxed.sys.global.u32 [%0],%1;
r s ld.shared.u8 %0,[%1];
r s ld.shared.s16 %0,[%1+2];
l s ld.shared.u64 %0,[%1];
rrrr s ld.shared.v4.u32 {%0,%1,%2,%3},[%4];
r s ld.volatile.shared.u32 %0,[%1];
 sr st.shared.u8 [%0],%1;
 sr st.shared.u16 [%0],%1;
 sl st.shared.u64 [%0],%1;
 srrrr st.shared.v4.u32 [%0],{%1,%2,%3,%4};
 sr st.volatile.shared.u32 [%0],%1;
 p prefetch.global.L1 [%0];
 p prefetch.global.L2 [%0];
r g {.reg .pred p; isspacep.shared p,%1; selp.u32 %0,1,2,p;}
r g {.reg .pred p; isspacep.local p,%1; selp.u32 %0,1,2,p;}
r g {.reg .pred p; isspacep.global p,%1; selp.u32 %0,1,2,p;}
r g {.reg .u64 t; cvta.to.shared.u64 t,%1; cvt.u32.u64 %0,t;}
l s {.reg .u64 t; cvt.u64.u32 t,%1; cvta.shared.u64 %0,t;}
r  {membar.cta; mov.u32 %0,1;}
r  {membar.gl; mov.u32 %0,1;}
r  {membar.sys; mov.u32 %0,1;}
r  {fence.acq_rel.gpu; mov.u32 %0,1;}
r r {nanosleep.u32 %1; mov.u32 %0,1;}
 r {.reg .pred p; setp.eq.u32 p,%0,7; @p trap;}
 r {.reg .pred p; setp.eq.u32 p,%0,7; @p exit;}
 r {.reg .pred p; setp.eq.u32 p,%0,7; @p brkpt;}
rrrr s ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3},[%4];
rr s ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1},[%2];
r s ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0},[%1];
r r movmatrix.sync.aligned.m8n8.trans.b16 %0,%1;
rr rr,r,rr mma.sync.aligned.m16n8k8.row.col.f16.f16.f16.f16
rr r,r,rr mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32
rr r,r,rr mma.sync.aligned.m8n8k16.row.col.satfinite.s32.u8.s8.s32
rr r,r,rr mma.sync.aligned.m8n8k32.row.col.s32.s4.u4.s32
rr r,r,rr mma.sync.aligned.m8n8k128.row.col.s32.b1.b1.s32.xor.popc
""",
    89: r"""
r rr min.f16x2 %0,%1,%2;
r rr max.NaN.f16x2 %0,%1,%2;
r rr min.bf16x2 %0,%1,%2;
h hh max.f16 %0,%1,%2;
r rrr fma.rn.relu.f16x2 %0,%1,%2,%3;
r rrr fma.rn.bf16x2 %0,%1,%2,%3;
h hhh fma.rn.bf16 %0,%1,%2,%3;
r r neg.bf16x2 %0,%1;
r r abs.bf16x2 %0,%1;
f ff min.NaN.f32 %0,%1,%2;
f ff max.xorsign.abs.f32 %0,%1,%2;
r ff cvt.rn.f16x2.f32 %0,%1,%2;
r ff cvt.rn.bf16x2.f32 %0,%1,%2;
r ff cvt.rz.relu.bf16x2.f32 %0,%1,%2;
h f cvt.rn.bf16.f32 %0,%1;
h f cvt.rz.bf16.f32 %0,%1;
r f cvt.rna.tf32.f32 %0,%1;
h ff cvt.rn.satfinite.e4m3x2.f32 %0,%1,%2;
h ff cvt.rn.satfinite.e5m2x2.f32 %0,%1,%2;
r h cvt.rn.f16x2.e4m3x2 %0,%1;
r h cvt.rn.f16x2.e5m2x2 %0,%1;
h r cvt.rn.satfinite.e4m3x2.f16x2 %0,%1;
r rr redux.sync.add.s32 %0,%1,%2;
r rr redux.sync.min.u32 %0,%1,%2;
r rr redux.sync.max.s32 %0,%1,%2;
r rr redux.sync.and.b32 %0,%1,%2;
r rr redux.sync.xor.b32 %0,%1,%2;
h ph atom.global.add.noftz.f16 %0,[%1],%2;
r p ld.global.L2::128B.u32 %0,[%1];
r p ld.global.L2::64B.u32 %0,[%1];
 sp cp.async.ca.shared.global [%0],[%1],4;
 sp cp.async.ca.shared.global [%0],[%1],8;
 sp cp.async.ca.shared.global [%0],[%1],16;
 sp cp.async.cg.shared.global [%0],[%1],16;
 spr cp.async.cg.shared.global [%0],[%1],16,%2;
 sp cp.async.cg.shared.global.L2::128B [%0],[%1],16;
 s {cp.async.commit_group; cp.async.wait_group 1;}
 s {cp.async.commit_group; cp.async.wait_all;}
ffff rrrr,rr,ffff mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32
ffff rrrr,rr,ffff mma.sync.aligned.m16n8k32.row.col.f32.e5m2.e4m3.f32
rr rrrr,rr,rr mma.sync.aligned.m16n8k16.row.col.f16.f16.f16.f16
ffff rrrr,rr,ffff mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32
ffff rr,r,ffff mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32
ffff rr,r,ffff mma.sync.aligned.m16n8k4.row.col.f32.tf32.tf32.f32
rrrr rr,r,rrrr mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32
rrrr rrrr,rr,rrrr mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32
rrrr rr,r,rrrr mma.sync.aligned.m16n8k32.row.col.s32.s4.s4.s32
rrrr rrrr,rr,rrrr mma.sync.aligned.m16n8k64.row.col.s32.u4.u4.s32
rrrr rrrr,rr,rrrr mma.sync.aligned.m16n8k256.row.col.s32.b1.b1.s32.and.popc
rrrr rr,r,rrrr mma.sync.aligned.m16n8k128.row.col.s32.b1.b1.s32.xor.popc
dd d,d,dd mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64
""",
    90: r"""
r rr add.bf16x2 %0,%1,%2;
r rr mul.bf16x2 %0,%1,%2;
r rr {.reg .pred p,q; setp.lt.bf16x2 p|q,%1,%2; selp.b32 %0,1,2,p; @q add.u32 %0,%0,7;}
f h cvt.f32.bf16 %0,%1;
r pr atom.global.add.noftz.bf16x2 %0,[%1],%2;
 srr {stmatrix.sync.aligned.m8n8.x2.shared.b16 [%0],{%1,%2};}
 sr {stmatrix.sync.aligned.m8n8.x1.trans.shared.b16 [%0],{%1};}
r  {.reg .pred p; elect.sync %0|p,0xffffffff; @p add.u32 %0,%0,1;}
r  mov.u32 %0,%%cluster_ctaid.x;
r  mov.u32 %0,%%cluster_nctaid.x;
r  mov.u32 %0,%%cluster_ctarank;
r  {griddepcontrol.wait; griddepcontrol.launch_dependents; mov.u32 %0,1;}
r s mapa.shared::cluster.u32 %0,%1,1;
r s ld.shared::cluster.u32 %0,[%1];
""",
}
"""PTX by the compute capability that it needs: types of what it writes, of what it reads, and
text. Types are those of inline assembly, `h` 16 bits; `p`, `s` and `g` are addresses of global and
shared memory and of either. What a matrix instruction reads are groups of registers."""

_CTYPES = {"r": "unsigned", "l": "unsigned long long", "f": "float", "d": "double",
           "h": "unsigned short"}
_ADDRESSES = {
    "p": ("l", "(unsigned long long)__cvta_generic_to_global(a+64*{}+t)"),
    "g": ("l", "(unsigned long long)(n>t?(unsigned*)(s+t):a+t)"),
    "s": ("r", "__cvta_generic_to_shared(s+4*t+64*{})"),
}


def _kernel(name: str, line: str) -> str:
    """One statement as a kernel that loads what it reads and stores what it writes."""
    matched = re.fullmatch(r"(\w*) ([\w,]*) (.+)", line)
    assert matched
    writes, groups, text = matched.groups()
    reads, body, given = groups.replace(",", ""), [], []
    if text.startswith("mma"):
        places = iter(range(len(writes + reads)))
        braced = [[f"%{next(places)}" for _ in group] for group in (writes, *groups.split(","))]
        text += " " + ",".join("{" + ",".join(group) + "}" for group in braced) + ";"
    for i, type in enumerate(reads):
        kind, value = _ADDRESSES.get(type, (type, f"(({_CTYPES.get(type)}*)a)[t+{32 * i}]"))
        body.append(f"{_CTYPES[kind]} i{i}={value.format(i)};")
        given.append(f'"{kind}"(i{i})')
    body += [f"{_CTYPES[type]} o{i};" for i, type in enumerate(writes)]
    results = ",".join(f'"={type}"(o{i})' for i, type in enumerate(writes))
    body.append(f'asm volatile("{text}":{results}:{",".join(given)}:"memory");')
    body += [f"(({_CTYPES[type]}*)a)[t+{1024 + 96 * i}]=o{i};" for i, type in enumerate(writes)]
    return (
        f'extern "C" __global__ void {name}(unsigned*a,int n){{__shared__ __align__(16) unsigned '
        f"s[512]; int t=threadIdx.x; s[t]=a[t+n]; __syncthreads(); {' '.join(body)} a[t+5]=s[n];}}"
        "\n"
    )


def lines(arch: str) -> list[str]:
    """The statements that an architecture has."""
    return [line for needs, text in STATEMENTS.items() if needs <= int(arch[3:])
            for line in text.strip("\n").split("\n")]  # fmt: skip


def statements(arch: str) -> str:
    """CUDA C of these: kernel `k7` has the eighth."""
    return "".join(_kernel(f"k{i}", line) for i, line in enumerate(lines(arch)))
