"""CUDA C that makes NVRTC use what NVIDIA's machine code has."""

from __future__ import annotations

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
"""
